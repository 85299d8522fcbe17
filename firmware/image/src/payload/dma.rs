//! A DMA engine copies into the first region and out of it: by scatter list, several transfers at a
//! time, and past the end of what decodes.
//!
//! **Invariant**: the engine is found as any PCI function is, by its class on bus 0; whether its
//! bytes went straight or bounced cannot be seen from here.

use core::ptr;

use cxl_firmware::mmio::{Block, Mmio};
use cxl_firmware::platform::Platform;
use cxl_regs::config::{Bar, Class};

use super::Checks;
use super::memory::{load, store};
use crate::Room;
use crate::hw::Hardware;
use crate::paging::Pages;

/// DMA controller.
const CLASS: u32 = 0x08_01_00;
/// Registers of a channel; the harness's `guest/engine.rs` has the table.
const CHANNEL_SIZE: u64 = 0x40;
const LIST_LOW: u64 = 0x00;
const LIST_HIGH: u64 = 0x04;
const ENTRIES: u64 = 0x08;
const CONTROL: u64 = 0x0C;
const ERROR: u64 = 0x10;
const ERROR_LOW: u64 = 0x18;
const ERROR_HIGH: u64 = 0x1C;
const RUNNING: u32 = 1;
const DONE: u32 = 2;
const FAILED: u32 = 3;
const NOTHING_DECODES: u32 = 2;

const PAGE: u64 = 4096;
const PAGES: usize = 16;
const BYTES: usize = PAGES * PAGE as usize;
/// Looks at a channel before giving up: each moves it on.
const PATIENCE: u32 = 10_000;

static mut OUT: Pages<BYTES> = Pages([0; BYTES]);
static mut BACK: Pages<BYTES> = Pages([0; BYTES]);
static mut LISTS: Pages<4096> = Pages([0; 4096]);

/// One channel of the engine.
#[derive(Clone, Copy)]
struct Channel(u64);

impl Channel {
    fn start(self, hw: &mut Hardware, list: u64, entries: u32) {
        hw.write(self.0 + LIST_LOW, list as u32);
        hw.write(self.0 + LIST_HIGH, (list >> 32) as u32);
        hw.write(self.0 + ENTRIES, entries);
        hw.write(self.0 + CONTROL, 1);
    }

    fn state(self, hw: &mut Hardware) -> u32 {
        hw.read(self.0 + CONTROL)
    }

    fn wait(self, hw: &mut Hardware) -> u32 {
        let mut state = RUNNING;
        for _ in 0..PATIENCE {
            state = self.state(hw);
            if state != RUNNING {
                break;
            }
        }
        state
    }
}

/// Address of the engine's registers.
fn find(hw: &mut Hardware, platform: &Platform<'_>) -> Option<u64> {
    platform.ecam.iter().find_map(|ecam| {
        let bus = ecam.bus(ecam.segment, 0)?;
        (0..32).map(|slot| Block(bus.0 + (slot << 15))).find_map(|function| {
            let class: Class = function.read(hw);
            let low = hw.read(function.address::<Bar>());
            let high = hw.read(function.address::<Bar>() + 4);
            let base = u64::from(high) << 32 | u64::from(low & !0xF);
            (class.code() == CLASS && base != 0).then_some(base)
        })
    })
}

/// Writes entry `index` of list `list`; each list has room for 32.
fn entry(list: usize, index: usize, [from, to, length]: [u64; 3]) -> u64 {
    let base = (&raw mut LISTS) as u64 + 1024 * list as u64;
    for (word, value) in [from, to, length].into_iter().enumerate() {
        let at = base + 32 * index as u64 + 8 * word as u64;
        // SAFETY: inside `LISTS`, aligned; only this function and the engine touch it.
        unsafe { ptr::write_volatile(at as *mut u64, value) };
    }
    base
}

/// Every page of the first region's first 64 KiB, by a list in reverse order; there and back.
pub(super) fn dma(hw: &mut Hardware, room: &Room, platform: &Platform<'_>, checks: &mut Checks) {
    let Some(engine) = find(hw, platform) else {
        return checks.refuse(format_args!("there is no DMA engine on bus 0"));
    };
    let Some(region) = room.committed.regions.first() else {
        return checks.refuse(format_args!("there is no region"));
    };
    let base = region.span.base().0;
    let channel = |number: u64| Channel(engine + CHANNEL_SIZE * number);
    let (out, back) = ((&raw mut OUT) as u64, (&raw mut BACK) as u64);
    for at in (0..BYTES as u64).step_by(8) {
        // SAFETY: inside `OUT`, aligned; the engine only reads it.
        unsafe { ptr::write_volatile((out + at) as *mut u64, !at) };
    }
    let mut list = 0;
    for index in 0..PAGES {
        let (here, there) = (PAGE * index as u64, PAGE * (PAGES - 1 - index) as u64);
        list = entry(0, index, [out + here, base + there, PAGE]);
    }
    channel(0).start(hw, list, PAGES as u32);
    let state = channel(0).wait(hw);
    checks.equal(format_args!("transfer into the window"), DONE.into(), state.into());
    for index in 0..PAGES as u64 {
        let (here, there) = (PAGE * index, PAGE * (PAGES as u64 - 1 - index));
        let found = load(hw, base + there);
        checks.equal(format_args!("page {index}"), !here, found);
    }

    // Two at a time: the same bytes back into RAM, and on to another place in the window.
    let other = base + BYTES as u64;
    let first = entry(1, 0, [base, back, BYTES as u64]);
    let second = entry(2, 0, [base, other, BYTES as u64]);
    channel(1).start(hw, first, 1);
    channel(2).start(hw, second, 1);
    let both = [channel(1).state(hw), channel(2).state(hw)];
    checks.equal(format_args!("first of two"), RUNNING.into(), both[0].into());
    checks.equal(format_args!("second of two"), RUNNING.into(), both[1].into());
    for number in [1, 2] {
        let state = channel(number).wait(hw);
        checks.equal(format_args!("transfer {number}"), DONE.into(), state.into());
    }
    let mut wrong = 0;
    for at in (0..BYTES as u64).step_by(8) {
        let page = PAGES as u64 - 1 - at / PAGE;
        // SAFETY: inside `BACK`, aligned; the engine is done with it.
        let found = unsafe { ptr::read_volatile((back + at) as *const u64) };
        wrong += u64::from(found != !(page * PAGE + at % PAGE));
    }
    checks.equal(format_args!("words that came back wrong"), 0, wrong);
    let found = load(hw, other + PAGE);
    checks.equal(format_args!("copy inside the window"), !(PAGE * (PAGES as u64 - 2)), found);

    // Over the end of what decodes, where nothing follows it.
    let end = region.span.end().0;
    if room.committed.regions.iter().any(|next| next.span.base().0 == end) {
        return;
    }
    store(hw, end - 8, 0);
    let list = entry(3, 0, [out, end - PAGE, 2 * PAGE]);
    channel(3).start(hw, list, 1);
    let state = channel(3).wait(hw);
    checks.equal(format_args!("transfer past the end"), FAILED.into(), state.into());
    let code = hw.read(channel(3).0 + ERROR);
    checks.equal(format_args!("its error"), NOTHING_DECODES.into(), code.into());
    let high = u64::from(hw.read(channel(3).0 + ERROR_HIGH));
    let low = u64::from(hw.read(channel(3).0 + ERROR_LOW));
    checks.equal(format_args!("the address it names"), end, high << 32 | low);
    let found = load(hw, end - 8);
    checks.equal(format_args!("the last word before it"), !(PAGE - 8), found);
}
