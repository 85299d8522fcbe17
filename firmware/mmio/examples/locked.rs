//! How many decoders of a component are locked, through typed cells over its registers.
//!
//! **Invariant**: the registers are an array here; on hardware they are the mapped CXL.cache/mem range.

use core::ptr::NonNull;

use cxl_mmio::ComponentView;

/// The 4 KiB of a range, as a device has it that one decoder of is locked.
#[repr(align(4096))]
struct Range([u32; 1024]);

fn main() {
    let mut range = Range([0; 1024]);
    for (at, value) in [
        (0x000, 0x0111_0001), // the capability array, of one entry:
        (0x004, 0x1101_0005), // HDM decoders at 0x110
        (0x110, 0x0000_0300), // one decoder
        (0x124, 0x0000_0001), // Base High: 4 GiB
        (0x128, 0x1000_0000), // Size Low: 256 MiB
        (0x130, 0x0000_1700), // Control: Lock On Commit, Commit, Committed, host-only
    ] {
        // Registers are little-endian, whatever the processor is.
        range.0[at / 4] = u32::to_le(value);
    }
    let first = NonNull::from(&mut range.0).cast();
    // SAFETY: 4 KiB that live as long as the view, and that nobody else touches meanwhile.
    let component = unsafe { ComponentView::new(first) }.expect("the array is whole");
    let hdm = component.hdm();
    let decoders = hdm.iter().flat_map(|hdm| hdm.decoders());
    let locked = decoders.filter(|decoder| decoder.control().locked()).count();
    println!("{locked} locked");
    assert_eq!(locked, 1);
}

#[test]
fn it_runs() {
    main();
}
