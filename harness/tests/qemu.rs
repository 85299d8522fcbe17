//! The library, run from here on QEMU's devices.
//!
//! Every test needs QEMU and is ignored, with the remedy, where there is none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod peer;

use std::process::ExitCode;

use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::policy::Policy;
use cxl_harness::qemu::bare;
use cxl_harness::qemu::qtest::Width;
use cxl_harness::run::Room;

use peer::{claim, stopped};

fn main() -> ExitCode {
    peer::main(vec![claim(
        "the_library_brings_up_devices_that_no_firmware_has_touched",
        one_device,
    )])
}

const ONE_DEVICE: &[&str] = &[
    "-M",
    "q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G",
    "-m",
    "1G,maxmem=8G,slots=1",
    "-device",
    "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1,hdm_for_passthrough=true",
    "-device",
    "cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2",
    "-object",
    "memory-backend-ram,id=vmem0,share=on,size=256M",
    "-device",
    "cxl-type3,bus=rp0,volatile-memdev=vmem0,id=cxl-vmem0",
];

fn one_device() {
    let (_qemu, mut qtest) = stopped(ONE_DEVICE);
    let tables = bare::platform(&mut qtest, 40).unwrap();
    let platform = tables.platform();
    assert_eq!(platform.bridges.iter().map(|b| b.uid).collect::<Vec<_>>(), [12]);
    let window = platform.windows[0].base;

    // Nothing decodes before anything is programmed.
    qtest.store(window, 0x0123_4567_89ab_cdef, Width::Eight).unwrap();
    assert_eq!(qtest.load(window, Width::Eight), Ok(0));

    let mut room = Box::new(Room::new());
    let mut clock = cxl_harness::qemu::Clock::new();
    let result = bring_up(&mut qtest, &mut clock, &platform, &Policy::default(), &mut room);
    assert_eq!(qtest.check(), Ok(()));
    result.unwrap_or_else(|error| panic!("{error}"));
    let Workspace { committed, .. } = &*room;
    assert_eq!(committed.decoders.len(), 2, "one of the bridge, one of the device");
    assert!(committed.decoders.iter().all(|decoder| decoder.locked()));

    let last = window + (256 << 20) - 8;
    for (address, value) in [(window, 0x0123_4567_89ab_cdef), (last, 0xfedc_ba98_7654_3210)] {
        qtest.store(address, value, Width::Eight).unwrap();
        assert_eq!(qtest.load(address, Width::Eight), Ok(value), "{address:#x}");
    }
    // The window goes on behind the device, and nothing decodes there.
    qtest.store(last + 8, 1, Width::Eight).unwrap();
    assert_eq!(qtest.load(last + 8, Width::Eight), Ok(0));
}
