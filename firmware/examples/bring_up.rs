//! The whole job on registers typed by hand: a bridge, a port, a device of 512 MiB, brought up and
//! locked, and what there is to say of it.
//!
//! **Invariant**: the library knows of the hardware what `Mmio` tells it.

#[allow(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/fake/mod.rs"]
mod fake;

use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::platform::{Platform, Restrictions, Window};
use cxl_firmware::policy::Policy;
use cxl_regs::{Arithmetic, Hpa, Interleave};

/// Control of decoder 0, of the device and of the bridge.
const CONTROLS: [u64; 2] = [0xfe80_1148, fake::BRIDGE + 0x1148];

/// 1 GiB at 4 GiB.
const WINDOW: (u64, u64) = (0x1_0000_0000, 0x4000_0000);

/// Memory behind all of it.
fn memory(address: u64) -> Option<u64> {
    (WINDOW.0..WINDOW.0 + WINDOW.1).contains(&address).then_some(address)
}

/// Decoders that keep what is written to them.
fn decoders(block: &mut fake::Registers, at: u64) {
    let kept = |value| fake::Reg { value, rw: !0, rw1c: 0 };
    block.insert(at + 4, kept(0));
    for decoder in 0..4 {
        for offset in (0x10..0x2C).step_by(4) {
            block.insert(at + 0x20 * decoder + offset, kept(0));
        }
    }
}

fn main() {
    let (mut hw, bridges) = fake::small();
    decoders(&mut hw.functions[1].blocks[0].2, 0x1128);
    decoders(&mut hw.fixed, fake::BRIDGE + 0x1128);
    for offset in [0x120, 0x124] {
        hw.functions[1].config.insert(offset, fake::Reg { value: 0, rw: !0, rw1c: 0 });
    }
    // Lock On Commit and Commit, for host-only memory: the hardware adds Committed.
    hw.reactions = CONTROLS.map(|control| (control, 0x1300, vec![(control, 0x1700)])).to_vec();
    hw.route = Some(memory);

    let window = Window {
        base: Some(Hpa(WINDOW.0)),
        size: WINDOW.1,
        interleave: Interleave::NONE,
        arithmetic: Arithmetic::Modulo,
        xor_maps: Default::default(),
        restrictions: Restrictions::new().with_host_only(true).with_volatile(true),
        qtg: 0,
        unreadable: None,
        targets: bridges.iter().map(|bridge| bridge.uid).collect(),
    };
    let windows = [window];
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut room = Box::new(Workspace::<4, 4, 8>::new());
    let policy = Policy::default();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut *room);
    match &result {
        Ok(extent) => println!("brought up: {extent:?}"),
        Err(error) => println!("refused, {:#06x}: {error}", error.code()),
    }
    for range in room.committed.memory_map() {
        println!("memory: {}", range.span);
    }
    assert!(result.is_ok());
}

#[test]
fn it_runs() {
    main();
}
