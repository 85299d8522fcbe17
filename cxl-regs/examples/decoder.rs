//! A decoder's meaning to dwords and back, and where the addresses of a set go.
//!
//! **Invariant**: it runs without hardware; its test runs it.

use cxl_regs::hdm::Capability;
use cxl_regs::{Coherency, Component, Decoder, Granularity, Hpa, Interleave, Route, Span, Ways};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A device with 4 decoders that selects on HPA bits 14:8: what its capability register says.
    let capability = Capability::from_bits(0x0000_0302);
    let decoder = Decoder {
        span: Span::new(Hpa(0x3_d000_0000), 512 << 20)?,
        interleave: Interleave::new(Ways::Two, Granularity::B256),
        coherency: Coherency::HostOnly,
        uio: None,
        set_position: 0,
        route: Route::Skip(0),
    };
    let image = decoder.encode(Component::Device, capability)?;
    let control = image.control().with_lock_on_commit(true).with_commit(true);
    println!("base     {:#010x} {:#010x}", image.base_high, image.base_low);
    println!("control  {:#010x}", control.into_bits());
    assert_eq!(Decoder::decode(&image, Component::Device, capability), Ok(decoder));
    for offset in [0, 0x100, 0x200, 0x300] {
        let (way, dpa) =
            (decoder.interleave.position(offset), decoder.interleave.dpa_offset(offset));
        println!("offset {offset:#05x}  way {way}, at {dpa:#x} of that device");
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("nothing here can fail");
}
