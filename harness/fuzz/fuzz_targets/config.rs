//! Configuration space of a function, and component registers, as text and as structures.
#![no_main]

use cxl_lint::Config;
use cxl_regs::block::image;
use cxl_regs::component::{Capabilities as Array, ComponentText};
use cxl_regs::config::{BridgeHeader, Capabilities, EndpointHeader, ExtendedCapabilities};
use cxl_regs::dvsec::Dvsecs;
use cxl_regs::dvsec::device::DeviceDvsecTail;
use cxl_regs::dvsec::flex_bus::FlexBusTail;
use cxl_regs::dvsec::locator::Locations;
use cxl_regs::text::ConfigText;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(0x1000)];
    let reader = image(data);
    let asked = |offset: u16| {
        assert!(offset < 0x1000 && offset.is_multiple_of(4), "{offset:#x}");
        reader(offset)
    };
    assert!(Capabilities::new(asked).count() <= 49);
    assert!(ExtendedCapabilities::new(asked).count() <= 961);
    for dvsec in Dvsecs::new(asked).flatten() {
        assert!(u32::from(dvsec.offset) + u32::from(dvsec.length) <= 0x1000);
        let _ = Locations::new(&dvsec, asked).map(|entries| entries.count());
        let _ = DeviceDvsecTail::of(&dvsec, asked);
        let _ = FlexBusTail::of(&dvsec, asked);
        assert!(dvsec.rows(asked).count() <= 0x400);
    }
    let _ = BridgeHeader::read(asked, 0).windows();
    let _ = EndpointHeader::read(asked, 0);
    let _ = Config::read(data);
    assert!(ConfigText(data).to_string().ends_with('\n'));
    assert!(ComponentText(data).to_string().ends_with('\n'));
    let _ = Array::new(reader);
});
