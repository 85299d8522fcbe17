//! The proof that the library does not panic: an image that links only if no panic path is left.
//!
//! The panic handler calls a function that exists nowhere. The linker keeps the handler, and asks
//! for that function, exactly when some verb of the library can still reach a panic after
//! optimisation. Nothing of it is ever run: `tests/no_panic.rs` links it, and also links it with a
//! panic path put in on purpose, which must fail.
//!
//! What is proved holds for builds without overflow checks, as release builds are. Printing an
//! error (`Display`) is no verb: it is left out, as in a bootloader without a console.
//!
//! **Invariant**: every value a verb is given comes from outside, so the optimiser knows nothing of
//! it that a caller could not make false.

#![no_std]
#![no_main]

#[path = "../memory.rs"]
mod memory;

use core::panic::PanicInfo;
use core::ptr;

use cxl_attack::{Event, Locks, Stores, Watch, Witness, attack};
use cxl_firmware::acpi::{self, Tables};
use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::commit::{commit, undo};
use cxl_firmware::discover::discover;
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::heapless::Vec;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::plan::plan;
use cxl_firmware::platform::{RootBus, Window};
use cxl_firmware::policy::Policy;
use cxl_firmware::probe::probe;
use cxl_firmware::tables;
use cxl_firmware::topology::Path;
use cxl_firmware::verify::{verify, verify_plan};
use cxl_firmware::windows::{self, Sizing};
use cxl_image::doorbell::{Call, Message};
use cxl_regs::acpi::{Identity, rsdt};
use cxl_regs::{Hpa, Interleave, Selector, Span};

/// What a caller gives, and where the results go.
pub struct Caller<'a> {
    registers: Registers,
    rsdp: u64,
    signature: [u8; 4],
    roots: &'a [(u32, RootBus)],
    address_bits: u8,
    policy: Policy<'a>,
    identity: Identity,
    first_domain: u32,
    location: Option<TableLocation>,
    message: Message,
    root: rsdt::Kind,
    index: usize,
    interleave: Interleave,
    maps: &'a [u64],
    place: (u32, &'a [u8]),
    bytes: &'a [u8],
    buffer: &'a mut [u8],
    platform: Tables<32, 64>,
    free: &'a [Span],
    windows: Vec<Window, 64>,
    work: Workspace<640, 320, 1280>,
    locks: Locks<2048>,
    /// What the verbs gave. Written to memory that the caller sees, so none of it is dead.
    results: [u64; 32],
}

/// Registers and memory by physical address.
#[derive(Clone, Copy)]
struct Registers {
    clock: *const u64,
    events: *mut u64,
}

impl Mmio for Registers {
    fn read(&mut self, address: u64) -> u32 {
        // SAFETY: never run. The optimiser has to assume that any value may come back.
        unsafe { ptr::read_volatile(address as *const u32) }
    }

    fn write(&mut self, address: u64, value: u32) {
        // SAFETY: never run.
        unsafe { ptr::write_volatile(address as *mut u32, value) }
    }
}

impl Clock for Registers {
    fn microseconds(&mut self) -> u64 {
        // SAFETY: never run.
        unsafe { ptr::read_volatile(self.clock) }
    }
}

impl Stores for Registers {}

impl Witness for Registers {
    fn hear(&mut self, event: Event) {
        for (number, word) in (0..).zip(event.encode()) {
            // SAFETY: never run.
            unsafe { ptr::write_volatile(self.events.wrapping_add(number), word) }
        }
    }
}

fn copy(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: never run.
        *byte = unsafe { ptr::read_volatile(at as *const u8) };
    }
}

/// Calls every verb once.
#[unsafe(no_mangle)]
pub fn _start(caller: &mut Caller<'_>) {
    let Caller { registers: hw, policy, work, buffer, results, .. } = caller;
    let clock = &mut hw.clone();
    let mut results = results.iter_mut();
    let mut keep = |value: u64| {
        if let Some(slot) = results.next() {
            *slot = value;
        }
    };

    let found = acpi::find_table(&mut copy, caller.rsdp, caller.signature, buffer);
    keep(found.map_or_else(|error| error.code().into(), |bytes| bytes.len() as u64));
    let (mcfg, cedt) = (caller.bytes, &**buffer);
    match Tables::from_acpi_in_part(mcfg, cedt, caller.address_bits, caller.roots) {
        Ok(tables) => caller.platform = tables,
        Err(error) => keep(error.code().into()),
    }
    let platform = caller.platform.platform();

    let result = discover(hw, clock, &platform, &mut work.topology);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));
    let result = plan(&platform, &work.topology, policy, &mut work.plan);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));
    let refused = work.plan.refused(&platform, &work.topology, policy, caller.index);
    keep(refused.filter_map(|refused| refused.window).map(|window| window.0).sum());
    let result = commit(hw, clock, &work.topology, &work.plan, policy, &mut work.committed);
    let receipt = result.inspect_err(|error| keep(error.code().into())).ok();
    verify(hw, &platform, &work.topology, &*policy, &mut work.committed, &mut work.findings);
    keep(work.findings.list().iter().map(|finding| u64::from(finding.code())).sum());
    let (tree, plan) = (&work.topology, &work.plan);
    verify_plan(hw, &platform, tree, plan, policy, &mut work.committed, &mut work.findings);
    keep(work.findings.more().into());
    let result = probe(hw, &platform, tree, policy.probe, &mut work.committed, &mut work.probe);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));
    keep(work.probe.list().iter().map(|error| u64::from(error.code())).sum());
    keep(work.probe.more().into());

    if let Some(receipt) = receipt {
        keep(receipt.written() as u64);
        undo(hw, tree, plan, policy, &mut work.committed, receipt);
    }
    let committed = &work.committed;
    let table = tables::cedt(&platform, tree, committed, caller.identity, buffer);
    keep(table.map_or_else(|error| error.code().into(), |bytes| bytes.len() as u64));
    let result = tables::cross_check_hardware(hw, caller.bytes, tree, committed);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));
    let result = tables::cross_check(caller.bytes, tree, committed);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));
    let table = tables::srat(committed, caller.identity, caller.first_domain, buffer);
    keep(table.map_or_else(|error| error.code().into(), |bytes| bytes.len() as u64));
    keep(
        committed.memory_map().map(|range| range.span.size() ^ u64::from(range.kind.e820())).sum(),
    );

    let contents = work.contents(platform.ecam, caller.location);
    let record = handoff::write(hw, &contents, buffer);
    keep(record.map_or_else(|error| error.code().into(), |bytes| bytes.len() as u64));
    match handoff::read(caller.bytes) {
        Ok(record) => {
            keep(record.regions().map(|region| region.span.size()).sum());
            keep(handoff::digest(record.decoders().map(|decoder| decoder.image)));
            keep(record.components().filter_map(|c| c.serial()).sum());
            keep(record.outcomes().filter_map(|o| Some(o.outcome.error()?.found)).sum());
            let result = record.check_registers(committed.decoders.iter().map(|entry| entry.image));
            keep(result.map_or_else(|error| error.code().into(), |_| 0));
        }
        Err(error) => keep(error.code().into()),
    }

    let sizing = Sizing { free: caller.free, across: Some(caller.interleave.granularity) };
    let result = windows::place(&platform, &work.topology, &sizing, &mut caller.windows);
    keep(result.map_or_else(|error| error.code().into(), |()| caller.windows.len() as u64));

    let result = bring_up(hw, clock, &platform, policy, &mut *work);
    keep(result.map_or_else(|error| error.code().into(), |_| 0));

    let (uid, ports) = caller.place;
    let device = Path::new(uid, ports).and_then(|path| work.topology.tree().device_at(&path));
    keep(device.map_or(0, |node| node.0.into()));
    if let Some(call) = Call::decode(&caller.message) {
        caller.message = call.encode();
    }
    let (ecam, tree, locks) = (platform.ecam, work.topology.tree(), &mut caller.locks);
    attack(&mut Watch::new(hw, ecam, tree, locks), clock, ecam, tree);
    keep(locks.held().into());
    keep(locks.changed().map(|(_, _, _, bits)| u64::from(bits)).sum());
    let (kind, root) = (caller.root, &mut *caller.buffer);
    let result = rsdt::replace(kind, caller.index, caller.rsdp, root);
    keep(result.map_or(0, |()| 1));
    keep(rsdt::append(kind, caller.rsdp, root).map_or(0, |bytes| bytes.len() as u64));
    if let Ok(selector) = Selector::xor(caller.interleave, caller.maps) {
        let position = selector.position(Hpa(caller.rsdp));
        keep(selector.hpa(Hpa(caller.rsdp), position, caller.rsdp).map_or(0, |hpa| hpa.0));
    }

    #[cfg(broken)]
    keep(caller.bytes[work.topology.nodes.len()].into());
}

unsafe extern "C" {
    /// Defined nowhere. A linker that asks for it has found a panic path.
    fn cxl_firmware_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never run; it does not even link.
    unsafe { cxl_firmware_can_panic() }
}
