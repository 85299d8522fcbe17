//! Configuration space, DVSECs, component arrays and mailbox against bytes, masks and answers typed
//! by hand.
//!
//! **Invariant**: no expectation here is computed by the crate under test.

#![allow(clippy::unwrap_used)]

mod images;

use cxl_regs::access::{Component, Feature, Features, Register, Spec};
use cxl_regs::bi::{BiDecoder, BiRouteTable};
use cxl_regs::block::{self, TooShort, image, write_dword};
use cxl_regs::cache_id::{CacheIdDecoder, CacheIdRouteTable};
use cxl_regs::commit::{CommitStatus, microseconds};
use cxl_regs::component::{
    ArrayError, Capabilities as Structures, CapabilityId as StructureId, ComponentText,
    RAS_REGISTERS, Region, cache_mem,
};
use cxl_regs::config::{
    BarError, BarKind, Bdf, BridgeHeader, Capabilities, CapabilityId, Command, EndpointHeader,
    ExtendedCapabilities, PcieCapability, PortType, Sbdf, Status, WalkError, WindowError, Windows,
};
use cxl_regs::dvsec::device::{
    self, DeviceDvsec, DeviceDvsecTail, MediaType, MemoryClass, Range, RangeError, RangeField,
    Readiness,
};
use cxl_regs::dvsec::flex_bus::{FlexBusDvsec, FlexBusTail};
use cxl_regs::dvsec::gpf::{GpfDeviceDvsec, GpfPortDvsec};
use cxl_regs::dvsec::locator::{self, BlockId, BlockLocation, Locations, LocatorError};
use cxl_regs::dvsec::port::PortDvsec;
use cxl_regs::dvsec::{Dvsec, DvsecError, DvsecId, Dvsecs};
use cxl_regs::mailbox::{
    self, DeviceArrayError, DeviceCapabilities, DeviceCapabilityId, IdentifyMemoryDevice, Mailbox,
    MemoryDeviceStatus, Opcode, PartitionInfo, ShortPayload,
};
use cxl_regs::text::ConfigText;
use cxl_regs::{Granularity, Hpa, Span};

/// A buffer in which every byte that nobody wrote shows.
const UNTOUCHED: u8 = 0xa5;

/// What a block writes at an odd place in a buffer of 0xa5, with its surroundings.
macro_rules! written {
    ($block:expr, $base:literal, $range:expr) => {{
        let mut buffer = vec![UNTOUCHED; 0x400];
        $block.put(&mut buffer, $base).unwrap();
        let range = $range.start + $base..$range.end + $base;
        assert!(buffer[..range.start].iter().all(|&byte| byte == UNTOUCHED));
        assert!(buffer[range.end..].iter().all(|&byte| byte == UNTOUCHED));
        buffer[range].to_vec()
    }};
}

#[test]
fn functions_have_names_and_places_in_ecam() {
    let bdf = Bdf::new(0x0c, 0, 0).unwrap();
    assert_eq!(Sbdf { segment: 0, bdf }.to_string(), "0000:0c:00.0");
    assert_eq!(bdf.ecam_offset(0x100), Some(0x00c0_0100));
    let last = Bdf::new(0xff, 31, 7).unwrap();
    assert_eq!(last.to_string(), "ff:1f.7");
    assert_eq!(last.ecam_offset(0xffc), Some(0x0fff_fffc));
    assert_eq!(last.ecam_offset(0x1000), None);
    assert_eq!(Bdf::from_ecam_offset(0x0fff_fffc), Some((last, 0xffc)));
    assert_eq!(Bdf::from_ecam_offset(0x1000_0000), None);
    assert_eq!(Bdf::new(0, 32, 0), None);
    assert_eq!(Bdf::new(0, 0, 8), None);
}

#[test]
fn endpoint_header_reads_and_writes_its_bytes() {
    let header = EndpointHeader::read(image(&images::ENDPOINT_HEADER), 0);
    assert_eq!((header.id.vendor(), header.id.device()), (0x8086, 0x0d93));
    assert!(header.command.memory_space() && header.command.bus_master());
    assert!(!header.command.io_space() && header.status.capability_list());
    assert_eq!((header.class.code(), header.class.revision()), (0x050210, 1));
    assert_eq!((header.header_type.layout(), header.header_type.multi_function()), (0, false));
    assert_eq!(header.bar2.value(), 0xfe90000c);
    assert_eq!((header.subsystem.vendor(), header.subsystem.device()), (0x1af4, 0x1100));
    assert_eq!(header.capabilities.pointer(), 0x80);
    assert_eq!((header.interrupt_line.line(), header.interrupt_pin.pin()), (11, 1));
    assert_eq!(written!(header, 0x20, 0..0x40), images::ENDPOINT_HEADER);
}

#[test]
fn bridge_header_reads_and_writes_its_bytes() {
    let header = BridgeHeader::read(image(&images::ROOT_PORT_HEADER), 0);
    assert_eq!((header.header_type.layout(), header.header_type.multi_function()), (1, true));
    assert_eq!(header.buses.into_bits(), 0x000d_0d0c);
    assert_eq!((header.buses.primary(), header.buses.secondary()), (0x0c, 0x0d));
    assert!(header.secondary_status.received_master_abort());
    assert!(header.bridge_control.serr() && !header.bridge_control.secondary_bus_reset());
    assert_eq!(written!(header, 0x20, 0..0x40), images::ROOT_PORT_HEADER);
}

#[test]
fn windows_are_what_the_registers_say_and_back() {
    let header = BridgeHeader::read(image(&images::ROOT_PORT_HEADER), 0);
    let span = |base, size| Some(Span::new(Hpa(base), size).unwrap());
    let windows = Windows {
        memory: span(0xfe80_0000, 0x20_0000),
        prefetchable: span(0x10_0000_0000, 0x1_0000_0000),
    };
    assert_eq!(header.windows(), windows);

    let closed = header.with_windows(Windows::default()).unwrap();
    assert_eq!(closed.windows(), Windows::default());
    assert_eq!(closed.memory_base.into_bits(), 0xfff0);
    assert_eq!(closed.memory_limit.into_bits(), 0x0000);
    assert_eq!(closed.with_windows(windows).unwrap(), header);

    let high = Windows { memory: span(0x1_0000_0000, 0x10_0000), prefetchable: None };
    assert!(matches!(header.with_windows(high), Err(WindowError::Above4GiB { .. })));
    let crooked = Windows { memory: span(0x8000_0000, 0x1000), prefetchable: None };
    assert!(matches!(header.with_windows(crooked), Err(WindowError::Unaligned { .. })));
}

#[test]
fn bars_tell_type_size_and_address() {
    let wide = BarKind::Memory64 { prefetchable: true };
    let narrow = BarKind::Memory32 { prefetchable: false };
    for (low, kind) in [
        (0xfe90_000c, wide),
        (0xfe90_0004, BarKind::Memory64 { prefetchable: false }),
        (0xfe90_0000, narrow),
        (0xfe90_0008, BarKind::Memory32 { prefetchable: true }),
        (0x0000_e001, BarKind::Io),
    ] {
        assert_eq!(BarKind::decode(low), Ok(kind));
        assert_eq!(kind.encode(), low & 0xf);
    }
    for register in [0xfe90_0002, 0xfe90_0006] {
        assert_eq!(BarKind::decode(register), Err(BarError::ReservedType { register }));
    }
    assert_eq!(wide.address(0xfe90_000c, 0x10), 0x10_fe90_0000);
    assert_eq!(narrow.address(0xfe90_0000, 0x10), 0xfe90_0000);
    assert_eq!(wide.at(0x10_fe90_0000), (0xfe90_000c, 0x10));

    for (kind, low, high, size) in [
        (wide, 0xffff_000c, 0xffff_ffff, Ok(Some(0x1_0000))),
        (wide, 0x0000_000c, 0xffff_fffc, Ok(Some(0x4_0000_0000))),
        (wide, 0x8000_000c, 0xffff_ffff, Ok(Some(0x8000_0000))),
        (narrow, 0xffff_0000, 0x1234_5678, Ok(Some(0x1_0000))),
        (narrow, 0x0000_0000, 0x0000_0000, Ok(None)),
        (narrow, 0xfff7_0000, 0, Err(BarError::Holes { bits: 0xfff7_0000 })),
        (wide, 0xffff_000c, 0, Err(BarError::Holes { bits: 0xffff_0000 })),
        (BarKind::Io, 0xffff_ff01, 0, Ok(Some(0x100))),
        (BarKind::Io, 0x0000_ff01, 0, Ok(Some(0x100))),
        (BarKind::Io, 0x8000_0001, 0, Ok(Some(0x8000_0000))),
    ] {
        assert_eq!(kind.size(low, high), size, "{kind:?} {low:#x} {high:#x}");
    }
    // Sizing a 64 KiB BAR, and then placing it.
    assert_eq!(wide.written(0x1_0000, !0, !0), (0xffff_000c, 0xffff_ffff));
    assert_eq!(wide.written(0x1_0000, 0xfe91_2345, 0x10), (0xfe91_000c, 0x10));
}

#[test]
fn pcie_capability_tells_port_type_and_number() {
    let space = images::root_port();
    let at = Capabilities::new(image(&space)).find(CapabilityId::PciExpress).unwrap().unwrap();
    assert_eq!(at, 0x40);
    let port = PcieCapability::read(image(&space), at);
    assert_eq!((port.port_type(), port.port_number()), (PortType::RootPort, 7));
    assert!(port.link_status.active() && !port.device_caps.function_level_reset());
    assert_eq!(written!(port, 0x44, 0..0x14), images::ROOT_PORT_PCIE);

    let space = images::endpoint();
    let endpoint = PcieCapability::read(image(&space), 0x80);
    assert_eq!((endpoint.port_type(), endpoint.port_number()), (PortType::Endpoint, 0));
    assert!(endpoint.device_caps.function_level_reset());
    assert_eq!(endpoint.device_control.max_read_request(), 2);
    assert_eq!((endpoint.link_status.speed(), endpoint.link_status.width()), (5, 16));
    assert_eq!(written!(endpoint, 0x44, 0..0x14), images::ENDPOINT_PCIE);
}

/// Where the endpoint's DVSECs are.
const ENDPOINT_DVSECS: [(u16, u16); 4] = [(0x100, 0), (0x13C, 5), (0x14C, 7), (0x16C, 8)];

/// Where the root port's DVSECs are.
const ROOT_PORT_DVSECS: [(u16, u16); 4] = [(0x100, 3), (0x128, 4), (0x138, 7), (0x14C, 8)];

#[test]
fn walks_find_every_cxl_dvsec() {
    for (space, expected) in
        [(images::endpoint(), ENDPOINT_DVSECS), (images::root_port(), ROOT_PORT_DVSECS)]
    {
        let found: Vec<_> = Dvsecs::new(image(&space))
            .map(|found| found.map(|dvsec| (dvsec.offset, dvsec.id.code())).unwrap())
            .collect();
        assert_eq!(found, expected);
    }
    let space = images::endpoint();
    let dvsec = Dvsecs::new(image(&space)).find(DvsecId::FlexBusPort).unwrap().unwrap();
    assert_eq!((dvsec.offset, dvsec.revision, dvsec.length), (0x14c, 2, 0x20));
    assert_eq!(Dvsecs::new(image(&space)).find(DvsecId::Mld), Ok(None));
}

#[test]
fn dvsecs_of_other_vendors_are_passed_over() {
    let mut space = images::endpoint();
    space[0x140..0x142].copy_from_slice(&[0x86, 0x80]);
    let ids: Vec<_> = Dvsecs::new(image(&space)).map(|found| found.unwrap().id.code()).collect();
    assert_eq!(ids, [0, 7, 8]);
}

#[test]
fn device_dvsec_reads_and_writes_its_bytes() {
    let dvsec = DeviceDvsec::read(image(&images::DEVICE), 0);
    let capability = dvsec.capability;
    assert!(capability.io_capable() && capability.mem_capable() && capability.mem_hw_init());
    assert!(!capability.cache_capable() && !capability.viral_capable());
    assert_eq!(capability.hdm_count(), 1);
    assert!(dvsec.control.mem_enable() && dvsec.control.io_enable());
    assert!(dvsec.status2.reset_complete() && !dvsec.status2.reset_error());
    assert!(!dvsec.lock.config_lock());
    let tail = DeviceDvsecTail::read(image(&images::DEVICE), 0);
    assert!(tail.capability3.preserves_hot() && tail.capability3.hot_configurable());
    assert!(!tail.capability3.direct_p2p());
    assert_eq!(written!(dvsec, 0x100, 0..0x38), images::DEVICE[..0x38]);
    assert_eq!(written!(tail, 0x100, 0x38..0x3c), images::DEVICE[0x38..]);
    let new = DeviceDvsec::new(3, 0x3c, 0x13c);
    assert_eq!(written!(new, 0x100, 0..0x38)[..0x0a], images::DEVICE[..0x0a]);
}

#[test]
fn revision_1_device_dvsec_has_no_tail() {
    let mut space = images::endpoint();
    space[0x106..0x108].copy_from_slice(&[0x81, 0x03]);
    let dvsec = Dvsecs::new(image(&space)).next().unwrap().unwrap();
    assert_eq!((dvsec.revision, dvsec.length), (1, device::LENGTH_REVISION_1));
    assert_eq!(DeviceDvsecTail::of(&dvsec, image(&space)), None);
    let body = DeviceDvsec::read(image(&space), dvsec.offset);
    assert!(dvsec.rows(image(&space)).eq(body.rows()));
}

#[test]
fn rows_of_a_dvsec_are_the_registers_it_is_long_enough_for() {
    let space = images::endpoint();
    let find = |id| Dvsecs::new(image(&space)).find(id).unwrap().unwrap();
    let device = find(DvsecId::Device);
    let body = DeviceDvsec::read(image(&space), device.offset);
    let tail = DeviceDvsecTail::read(image(&space), device.offset);
    assert!(device.rows(image(&space)).eq(body.rows().into_iter().chain(tail.rows())));
    for (id, last) in [
        (DvsecId::Device, Some((0x38, "capability3"))),
        (DvsecId::GpfDevice, Some((0x0c, "phase2_power"))),
        (DvsecId::FlexBusPort, Some((0x1c, "status2"))),
        (DvsecId::RegisterLocator, None),
    ] {
        let row = find(id).rows(image(&space)).last();
        assert_eq!(row.map(|row| (row.spec.offset, row.label)), last, "{id}");
        let short = Dvsec { length: 0x0c, ..find(id) };
        assert_eq!(short.rows(image(&space)).count(), 0, "{id}");
    }
    let port = images::root_port();
    for (id, last) in [
        (DvsecId::PortExtensions, (0x24, "rcrb_base_high")),
        (DvsecId::GpfPort, (0x0e, "phase2_control")),
    ] {
        let dvsec = Dvsecs::new(image(&port)).find(id).unwrap().unwrap();
        let row = dvsec.rows(image(&port)).last();
        assert_eq!(row.map(|row| (row.spec.offset, row.label)), Some(last), "{id}");
    }
}

#[test]
fn ranges_are_what_the_registers_say_and_back() {
    let dvsec = DeviceDvsec::read(image(&images::DEVICE), 0);
    let [first, second] = dvsec.ranges();
    let range = Range {
        base: Hpa(0x10_9000_0000),
        size: 9 << 30,
        readiness: Readiness::Active,
        media: MediaType::Cdat,
        class: MemoryClass::Cdat,
        desired_interleave: Some(Granularity::K4),
        active_timeout: 3,
    };
    assert_eq!(Range::decode(first), Ok(range));
    assert_eq!(range.encode(), Ok(first));
    assert_eq!(Range::decode(second), Err(RangeError::NotValid));
    assert_eq!(dvsec.with_ranges([first, second]), dvsec);
    assert_eq!(device::active_timeout_seconds(range.active_timeout), Some(64));

    // Second range: the same bytes 0x10 further on.
    let mut bytes = images::DEVICE;
    bytes.copy_within(0x18..0x28, 0x28);
    bytes[0x34..0x38].copy_from_slice(&[0, 0, 0, 0xd0]);
    let second = DeviceDvsec::read(image(&bytes), 0).ranges()[1];
    assert_eq!(Range::decode(second), Ok(Range { base: Hpa(0x10_d000_0000), ..range }));

    let broken = |low: u32| {
        let mut bytes = images::DEVICE;
        bytes[0x1c..0x20].copy_from_slice(&low.to_le_bytes());
        Range::decode(DeviceDvsec::read(image(&bytes), 0).ranges()[0])
    };
    let reserved = |field, code| Err(RangeError::Reserved { field, code });
    assert_eq!(broken(0x4000_624f), reserved(RangeField::MediaType, 3));
    assert_eq!(broken(0x4000_626b), reserved(RangeField::MemoryClass, 3));
    assert_eq!(broken(0x4000_684b), reserved(RangeField::DesiredInterleave, 8));
    assert_eq!(broken(0x4000_a24b), reserved(RangeField::ActiveTimeout, 5));
    assert_eq!(broken(0x4001_624b), Err(RangeError::ActiveAndDegraded));
    assert_eq!(broken(0x4001_6249).unwrap().readiness, Readiness::Degraded);

    let base = Hpa(0x1000);
    let size = range.size;
    assert_eq!(Range { base, ..range }.encode(), Err(RangeError::Unaligned { base, size }));
    let base = Hpa(0xffff_ffff_f000_0000);
    assert_eq!(Range { base, ..range }.encode(), Err(RangeError::Wraps { base, size }));
}

#[test]
fn desired_interleave_has_an_order_of_its_own() {
    let bytes = [256, 4096, 512, 1024, 2048, 8192, 16384];
    assert_eq!(device::desired_interleave(0), Some(None));
    assert_eq!(device::encode_desired_interleave(None), 0);
    for (code, bytes) in (1..).zip(bytes) {
        let granularity = device::desired_interleave(code).unwrap().unwrap();
        assert_eq!(granularity.bytes(), bytes);
        assert_eq!(device::encode_desired_interleave(Some(granularity)), code);
    }
    assert_eq!(device::desired_interleave(8), None);
    assert_eq!(device::desired_interleave(0x1f), None);
}

#[test]
fn device_timeouts_decode() {
    let timeouts = (0..8).map(|code| device::Capability::new().with_reset_timeout(code));
    let reset: Vec<_> = timeouts.map(device::Capability::reset_timeout_ms).collect();
    let some = [10, 100, 1000, 10_000, 100_000].map(Some);
    assert_eq!(reset, [some.as_slice(), &[None; 3]].concat());
    let active: Vec<_> = (0..8).map(device::active_timeout_seconds).collect();
    assert_eq!(active, [[1, 4, 16, 64, 256].map(Some).as_slice(), &[None; 3]].concat());
    let expected = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    for (scale, unit) in (0..).zip(expected) {
        assert_eq!(microseconds(15, scale), Some(15 * unit));
    }
    assert_eq!(microseconds(1, 8), None);
}

#[test]
fn port_dvsec_reads_and_writes_its_bytes() {
    let dvsec = PortDvsec::read(image(&images::PORT), 0);
    assert!(dvsec.status.pm_init_complete() && !dvsec.status.viral());
    assert!(dvsec.control.unmask_sbr() && dvsec.control.unmask_link_disable());
    assert!(dvsec.control.viral_enable() && !dvsec.control.alt_space());
    assert_eq!((dvsec.alt_bus_base.bus(), dvsec.alt_bus_limit.bus()), (0x20, 0x2f));
    assert_eq!((dvsec.alt_memory_base.address(), dvsec.alt_memory_limit.address()), (0xd00, 0xd0f));
    assert_eq!(dvsec.alt_pref_base.address(), 0x100);
    assert_eq!((dvsec.alt_pref_base_hi.address(), dvsec.alt_pref_limit_hi.address()), (5, 6));
    assert!(dvsec.rcrb_base.enable());
    assert_eq!(dvsec.rcrb_base.address(), 0xfed0_2000 >> 13);
    assert_eq!(written!(dvsec, 0x100, 0..0x28), images::PORT);
}

#[test]
fn gpf_dvsecs_read_and_write_their_bytes() {
    let port = GpfPortDvsec::read(image(&images::GPF_PORT), 0);
    let (one, two) = (port.phase1_control, port.phase2_control);
    assert_eq!(microseconds(one.timeout_base(), one.timeout_scale()), Some(2_000_000));
    assert_eq!(microseconds(two.timeout_base(), two.timeout_scale()), Some(500_000));
    assert_eq!(written!(port, 0x100, 0..0x10), images::GPF_PORT);
    let device = GpfDeviceDvsec::read(image(&images::GPF_DEVICE), 0);
    let time = device.phase2_duration;
    assert_eq!(microseconds(time.time_base(), time.time_scale()), Some(3_000_000));
    assert_eq!(device.phase2_power.milliwatts(), 51);
    assert_eq!(written!(device, 0x100, 0..0x10), images::GPF_DEVICE);
}

#[test]
fn flex_bus_dvsec_reads_and_writes_its_bytes() {
    let one = FlexBusDvsec::read(image(&images::FLEX_BUS_1), 0);
    assert!(one.capability.mem() && one.capability.flit_68b_vh() && !one.capability.cache());
    assert!(one.status.mem() && one.status.correctable_framing());
    assert_eq!(one.received_ts.data(), 0xef);
    assert_eq!(written!(one, 0x100, 0..0x14), images::FLEX_BUS_1);

    let two = FlexBusDvsec::read(image(&images::FLEX_BUS_2), 0);
    let tail = FlexBusTail::read(image(&images::FLEX_BUS_2), 0);
    assert!(tail.capability2.nop_hint() && !tail.control2.nop_hint());
    assert_eq!(written!(two, 0x100, 0..0x14), images::FLEX_BUS_2[..0x14]);
    assert_eq!(written!(tail, 0x100, 0x14..0x20), images::FLEX_BUS_2[0x14..]);
    let find =
        |space: &[u8]| Dvsecs::new(image(space)).find(DvsecId::FlexBusPort).unwrap().unwrap();
    let (old, new) = (images::root_port(), images::endpoint());
    assert_eq!(FlexBusTail::of(&find(&old), image(&old)), None);
    assert_eq!(FlexBusTail::of(&find(&new), image(&new)), Some(tail));
}

#[test]
fn register_locator_reads_and_writes_its_bytes() {
    let space = images::endpoint();
    let dvsec = Dvsecs::new(image(&space)).find(DvsecId::RegisterLocator).unwrap().unwrap();
    let entries: Vec<_> =
        Locations::new(&dvsec, image(&space)).unwrap().map(Result::unwrap).collect();
    let location = |id, bar, offset| BlockLocation { id, bar, offset };
    let expected = [
        location(BlockId::Component, 0, 0),
        location(BlockId::Device, 2, 0x1_0003_0000),
        location(BlockId::Empty, 0, 0),
    ];
    assert_eq!(entries, expected);

    let mut buffer = [UNTOUCHED; 0x40];
    assert_eq!(locator::put(&mut buffer, 0x10, 0, &expected), Ok(0x24));
    assert_eq!(buffer[0x10..0x34], images::LOCATOR_3);
    assert!(buffer[..0x10].iter().chain(&buffer[0x34..]).all(|&byte| byte == UNTOUCHED));
}

#[test]
fn broken_register_locators_are_refused_by_name() {
    let mut space = images::endpoint();
    space[0x180] = 0x06; // BIR 6 in entry 1
    let dvsec = Dvsecs::new(image(&space)).find(DvsecId::RegisterLocator).unwrap().unwrap();
    let entries: Vec<_> = Locations::new(&dvsec, image(&space)).unwrap().collect();
    assert_eq!(entries[1], Err(LocatorError::Bar { entry: 1, bar: 6 }));
    assert!(entries[0].is_ok() && entries[2].is_ok());

    space[0x172..0x174].copy_from_slice(&[0x80, 0x02]); // length 0x28
    let dvsec = Dvsecs::new(image(&space)).find(DvsecId::RegisterLocator).unwrap().unwrap();
    let error = LocatorError::Length { at: 0x16c, length: 0x28 };
    assert_eq!(Locations::new(&dvsec, image(&space)).map(|_| ()), Err(error));

    let one = BlockLocation { id: BlockId::Component, bar: 0, offset: 0x1000 };
    let mut buffer = [UNTOUCHED; 0x40];
    let error = LocatorError::Unaligned { entry: 0, offset: 0x1000 };
    assert_eq!(locator::put(&mut buffer, 0, 0, &[one]), Err(error));
    let error = LocatorError::Bar { entry: 0, bar: 6 };
    assert_eq!(locator::put(&mut buffer, 0, 0, &[BlockLocation { bar: 6, ..one }]), Err(error));
    let error = LocatorError::TooShort(TooShort { need: 0x44, have: 0x40 });
    let aligned = BlockLocation { offset: 0, ..one };
    assert_eq!(locator::put(&mut buffer, 0, 0, &[aligned; 7]), Err(error));
    let error = LocatorError::TooMany { entries: 511 };
    assert_eq!(locator::put(&mut buffer, 0, 0, &[aligned; 511]), Err(error));
}

/// What each bit of one dword does, typed by hand: read-only, read-write, read-write until locked,
/// write 1 to clear, write once. Bits in none are reserved, or trigger and read 0.
struct Bits {
    offset: u16,
    ro: u32,
    rw: u32,
    rwl: u32,
    w1c: u32,
    wo: u32,
}

const fn bits(offset: u16, ro: u32, rw: u32, rwl: u32, w1c: u32, wo: u32) -> Bits {
    Bits { offset, ro, rw, rwl, w1c, wo }
}

/// Every dword of a structure takes every write as its masks say.
fn obeys(name: &str, registers: &[Spec], who: (Component, Features), dwords: &[Bits]) {
    const VALUES: [u32; 5] = [0, !0, 0x5a5a_a5a5, 0xa5a5_5a5a, 0x0001_8000];
    for spec in registers {
        let dword = spec.offset & !3;
        assert!(dwords.iter().any(|bits| bits.offset == dword), "{name} {dword:#x} has no masks");
    }
    for bits in dwords {
        for (old, new) in VALUES.iter().flat_map(|old| VALUES.map(|new| (*old, new))) {
            for locked in [false, true] {
                let kept = if locked { bits.rwl } else { 0 };
                let free = if locked { 0 } else { bits.rwl };
                let expected = old & (bits.ro | kept)
                    | new & (bits.rw | free)
                    | old & !new & bits.w1c
                    | (old | new) & bits.wo;
                let found = write_dword(registers, bits.offset, who, locked, old, new);
                let at = bits.offset;
                assert_eq!(
                    found, expected,
                    "{name} +{at:#x}: {new:#010x} over {old:#010x}, locked {locked}"
                );
            }
        }
    }
}

const DEVICE_ALL: (Component, Features) = (Component::Device, Features::ALL);
const DEVICE_PLAIN: (Component, Features) = (Component::Device, Features::NONE);

#[test]
fn device_dvsec_takes_writes_as_specified() {
    let common = |control, status2, control2| {
        [
            bits(0x00, !0, 0, 0, 0, 0),
            bits(0x04, !0, 0, 0, 0, 0),
            bits(0x08, !0, 0, 0, 0, 0),
            bits(0x0c, 0x2, 0, control, 0x4000_0000, 0),
            bits(0x10, 0x8007_0000, control2, 0, status2, 0),
            bits(0x14, 0xffff_0000, 0, 0, 0, 0x1),
            bits(0x18, !0, 0, 0, 0, 0),
            bits(0x1c, 0xf001_ffff, 0, 0, 0, 0),
            bits(0x20, 0, 0, !0, 0, 0),
            bits(0x24, 0, 0, 0xf000_0000, 0, 0),
            bits(0x28, !0, 0, 0, 0, 0),
            bits(0x2c, 0xf001_ffff, 0, 0, 0, 0),
            bits(0x30, 0, 0, !0, 0, 0),
            bits(0x34, 0, 0, 0xf000_0000, 0, 0),
        ]
    };
    let all = common(0x5ffd, 0x0008_0000, 0x0039);
    obeys("device", DeviceDvsec::REGISTERS, DEVICE_ALL, &all);
    let plain = common(0x4ffd, 0, 0x0008);
    obeys("plain device", DeviceDvsec::REGISTERS, DEVICE_PLAIN, &plain);
    let tail = [bits(0x38, 0xffff_001f, 0, 0, 0, 0)];
    obeys("device tail", DeviceDvsecTail::REGISTERS, DEVICE_ALL, &tail);
}

/// The write masks of QEMU's Type 3 device (`hw/mem/cxl_type3.c`).
#[test]
fn device_dvsec_write_masks_are_qemus() {
    let features = Features::NONE.with(Feature::CacheWriteBack).with(Feature::CxlReset);
    let mask = |spec: Spec| spec.write_mask(Component::Device, features);
    assert_eq!(mask(device::Control::SPEC), 0x4ffd);
    assert_eq!(mask(device::Control2::SPEC), 0x000f);
    assert_eq!(mask(device::Lock::SPEC), 0x0001);
    assert_eq!(mask(device::RangeBaseHigh::SPEC), 0xffff_ffff);
    assert_eq!(mask(device::RangeBaseLow::SPEC), 0xf000_0000);
}

#[test]
fn other_dvsecs_take_writes_as_specified() {
    const RO: [Bits; 2] = [bits(0x00, !0, 0, 0, 0, 0), bits(0x04, !0, 0, 0, 0, 0)];
    let with_headers = |rest: Vec<Bits>| RO.into_iter().chain(rest).collect::<Vec<_>>();
    let port = with_headers(vec![
        bits(0x08, 0x0001_ffff, 0, 0, 0x4000_0000, 0),
        bits(0x0c, 0, 0xffff_401f, 0, 0, 0),
        bits(0x10, 0, 0xfff0_fff0, 0, 0, 0),
        bits(0x14, 0, 0xfff0_fff0, 0, 0, 0),
        bits(0x18, 0, !0, 0, 0, 0),
        bits(0x1c, 0, !0, 0, 0, 0),
        bits(0x20, 0, 0xffff_e001, 0, 0, 0),
        bits(0x24, 0, !0, 0, 0, 0),
    ]);
    obeys("port", PortDvsec::REGISTERS, (Component::HostBridge, Features::ALL), &port);
    // Nothing lies in the upper half of dword 8: what is there stays.
    let gpf = with_headers(vec![
        bits(0x08, 0xffff_ffff, 0, 0, 0, 0),
        bits(0x0c, 0, 0x0f0f_0f0f, 0, 0, 0),
    ]);
    obeys("GPF port", GpfPortDvsec::REGISTERS, (Component::HostBridge, Features::ALL), &gpf);
    let gpf = with_headers(vec![bits(0x08, 0x0f0f_ffff, 0, 0, 0, 0), bits(0x0c, !0, 0, 0, 0, 0)]);
    obeys("GPF device", GpfDeviceDvsec::REGISTERS, DEVICE_ALL, &gpf);
    for (component, ro, rw) in [
        (Component::Device, 0xe07f_63ff, 0),
        (Component::HostBridge, 0xe07f_0002, 0x63fd),
        (Component::UpstreamPort, 0xe07f_63ff, 0),
    ] {
        let flex_bus = with_headers(vec![
            bits(0x08, 0x6067_ffff, 0, 0, 0, 0),
            bits(0x0c, ro, rw, 0, 0x1f80_0000, 0),
            bits(0x10, 0x00ff_ffff, 0, 0, 0, 0),
        ]);
        obeys("Flex Bus", FlexBusDvsec::REGISTERS, (component, Features::ALL), &flex_bus);
    }
    let tail =
        [bits(0x14, 0x1, 0, 0, 0, 0), bits(0x18, 0, 0x1, 0, 0, 0), bits(0x1c, 0x3, 0, 0, 0, 0)];
    obeys("Flex Bus tail", FlexBusTail::REGISTERS, DEVICE_ALL, &tail);
}

#[test]
fn configuration_headers_take_writes_as_specified() {
    let common = || {
        [
            bits(0x00, !0, 0, 0, 0, 0),
            bits(0x04, 0x06b9_02b8, 0x0547, 0, 0xf900_0000, 0),
            bits(0x08, !0, 0, 0, 0, 0),
            bits(0x0c, 0xffff_ff00, 0xff, 0, 0, 0),
        ]
    };
    let endpoint: Vec<_> = common()
        .into_iter()
        .chain([0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|bar| bits(bar, 0, !0, 0, 0, 0)))
        .chain([
            bits(0x2c, !0, 0, 0, 0, 0),
            bits(0x34, !0, 0, 0, 0, 0),
            bits(0x3c, 0xffff_ff00, 0xff, 0, 0, 0),
        ])
        .collect();
    obeys("endpoint", EndpointHeader::REGISTERS, DEVICE_ALL, &endpoint);
    let bridge: Vec<_> = common()
        .into_iter()
        .chain([0x10, 0x14].map(|bar| bits(bar, 0, !0, 0, 0, 0)))
        .chain([
            bits(0x18, 0xff00_0000, 0x00ff_ffff, 0, 0, 0),
            bits(0x1c, 0x06a0_0f0f, 0xf0f0, 0, 0xf900_0000, 0),
            bits(0x20, 0, 0xfff0_fff0, 0, 0, 0),
            bits(0x24, 0x000f_000f, 0xfff0_fff0, 0, 0, 0),
            bits(0x28, 0, !0, 0, 0, 0),
            bits(0x2c, 0, !0, 0, 0, 0),
            bits(0x30, !0, 0, 0, 0, 0),
            bits(0x34, !0, 0, 0, 0, 0),
            bits(0x3c, 0x00a0_ff00, 0x005f_00ff, 0, 0, 0),
        ])
        .collect();
    obeys("bridge", BridgeHeader::REGISTERS, (Component::HostBridge, Features::NONE), &bridge);
}

#[test]
fn pcie_capability_takes_writes_as_specified() {
    // Initiate FLR and Retrain Link read 0 whatever is written.
    let pcie = [
        bits(0x00, 0x3fff_ffff, 0, 0, 0, 0),
        bits(0x04, 0x7ffd_8fff, 0, 0, 0, 0),
        bits(0x08, 0x0030_0000, 0x7fff, 0, 0x000f_0000, 0),
        bits(0x0c, 0xff7f_ffff, 0, 0, 0, 0),
        bits(0x10, 0x3bff_0004, 0xcfdb, 0, 0xc000_0000, 0),
    ];
    obeys("endpoint", PcieCapability::REGISTERS, DEVICE_ALL, &pcie);
    obeys("port", PcieCapability::REGISTERS, (Component::HostBridge, Features::ALL), &pcie);
}

#[test]
fn component_structures_take_writes_as_specified() {
    let committing = Features::NONE.with(Feature::ExplicitCommit);
    let status = |ro| bits(0x08, ro, 0, 0, 0, 0);
    let (device, bridge) = (Component::Device, Component::HostBridge);
    let port = Component::UpstreamPort;

    let table = [bits(0, 0x1, 0, 0, 0, 0), bits(4, 0, 0x1, 0, 0, 0), status(0xff03)];
    obeys("BI routes", BiRouteTable::REGISTERS, (port, committing), &table);
    let table = [bits(0, 0x1, 0, 0, 0, 0), bits(4, 0, 0, 0, 0, 0), status(0)];
    obeys("BI routes at once", BiRouteTable::REGISTERS, (port, Features::NONE), &table);
    let decoder = [bits(0, 0x2, 0, 0, 0, 0), bits(4, 0, 0x7, 0, 0, 0), status(0xff03)];
    obeys("BI port", BiDecoder::REGISTERS, (port, committing), &decoder);
    let decoder = [bits(0, 0x1, 0, 0, 0, 0), bits(4, 0, 0x2, 0, 0, 0), status(0)];
    obeys("BI device", BiDecoder::REGISTERS, (device, Features::NONE), &decoder);

    for (component, capability) in [(bridge, 0x0001_0f1f), (port, 0x0001_001f)] {
        let table = [bits(0, capability, 0, 0, 0, 0), bits(4, 0, 0x1, 0, 0, 0), status(0xff03)];
        obeys("Cache ID", CacheIdRouteTable::REGISTERS, (component, committing), &table);
    }
    let decoder = [bits(0, 0x1, 0, 0, 0, 0), bits(4, 0, 0x030f_0f0f, 0, 0, 0), status(0xff03)];
    obeys("Cache ID", CacheIdDecoder::REGISTERS, (bridge, committing), &decoder);

    let ras = [
        bits(0x00, 0, 0, 0, 0x0001_cfff, 0),
        bits(0x04, 0, 0x0001_cfff, 0, 0, 0),
        bits(0x08, 0, 0x0001_cfff, 0, 0, 0),
        bits(0x0c, 0, 0, 0, 0x7f, 0),
        bits(0x10, 0, 0x7f, 0, 0, 0),
        bits(0x14, 0x023f, 0x2000, 0, 0, 0),
    ];
    obeys("RAS", RAS_REGISTERS, DEVICE_PLAIN, &ras);
}

#[test]
fn mailbox_takes_writes_as_specified() {
    let mailbox = [
        bits(0x00, 0x007f_ffff, 0, 0, 0, 0),
        bits(0x04, 0, 0x7, 0, 0, 0),
        bits(0x08, 0, !0, 0, 0, 0),
        bits(0x0c, 0, 0x1f, 0, 0, 0),
        bits(0x10, 0x1, 0, 0, 0, 0),
        bits(0x14, !0, 0, 0, 0, 0),
        bits(0x18, 0x007f_ffff, 0, 0, 0, 0),
        bits(0x1c, !0, 0, 0, 0, 0),
    ];
    obeys("mailbox", Mailbox::REGISTERS, DEVICE_PLAIN, &mailbox);
    let status = [bits(0, 0xff, 0, 0, 0, 0)];
    obeys("memory device", &[MemoryDeviceStatus::SPEC], DEVICE_PLAIN, &status);
}

/// The smallest model: a configuration space whose DVSEC takes writes by the tables alone.
struct Model {
    bytes: Vec<u8>,
}

impl Model {
    const BASE: u16 = 0x100;

    fn load(&self, offset: u16) -> u32 {
        image(&self.bytes)(Self::BASE + offset)
    }

    fn store(&mut self, offset: u16, new: u32) {
        let features = Features::NONE.with(Feature::CacheWriteBack).with(Feature::CxlReset);
        let who = (Component::Device, features);
        let lock: device::Lock = block::read(image(&self.bytes), Self::BASE);
        let old = self.load(offset);
        let locked = lock.config_lock();
        let value = write_dword(DeviceDvsec::REGISTERS, offset, who, locked, old, new);
        let at = usize::from(Self::BASE + offset);
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn device_dvsec_model_needs_the_tables_alone() {
    let mut model = Model { bytes: images::endpoint() };
    for (step, offset, store, load) in [
        ("IO_Enable stays, viral status cannot be set", 0x0c, 0xffff_ffff, 0x0000_4fff),
        ("Mem_Enable comes back alone", 0x0c, 0x0000_0004, 0x0000_0006),
        ("triggers read 0, Status2 is read-only", 0x10, 0xffff_ffff, 0x0002_0009),
        ("base high takes all", 0x20, 0xffff_ffff, 0xffff_ffff),
        ("base low takes its top", 0x24, 0xffff_ffff, 0xf000_0000),
        ("size is read-only", 0x1c, 0x0000_0000, 0x4000_624b),
        ("range 2 too", 0x34, 0x8fff_ffff, 0x8000_0000),
        ("the lock's neighbour is read-only", 0x14, 0xffff_0000, 0x0000_0000),
        ("lock", 0x14, 0x0000_0001, 0x0000_0001),
        ("the lock stays", 0x14, 0x0000_0000, 0x0000_0001),
        ("Control is frozen", 0x0c, 0x0000_0000, 0x0000_0006),
        ("base high is frozen", 0x20, 0x0000_0000, 0xffff_ffff),
        ("base low is frozen", 0x24, 0x0000_0000, 0xf000_0000),
        ("range 2 base is frozen", 0x34, 0x0000_0000, 0x8000_0000),
        ("Control2 is not", 0x10, 0x0000_0000, 0x0002_0000),
    ] {
        model.store(offset, store);
        assert_eq!(model.load(offset), load, "{step}");
    }
}

#[test]
fn status_errors_clear_where_ones_are_written() {
    let spec = [Command::SPEC, Status::SPEC];
    let write = |old, new| write_dword(&spec, 4, DEVICE_PLAIN, false, old, new);
    assert_eq!(write(0xf900_0006, 0x0000_0006), 0xf900_0006);
    assert_eq!(write(0xf900_0006, 0x8000_0006), 0x7900_0006);
    assert_eq!(write(0xf910_0006, 0xffff_0000), 0x0010_0000);
}

#[test]
fn broken_capability_lists_end_in_an_error_with_its_place() {
    let extended = |edits: &[(usize, [u8; 4])]| {
        let mut space = images::endpoint();
        for (at, bytes) in edits {
            space[*at..at + 4].copy_from_slice(bytes);
        }
        ExtendedCapabilities::new(image(&space)).take(1000).last().unwrap()
    };
    let (at, to) = (0x16c, 0x100);
    let looped = extended(&[(0x16c, [0x23, 0, 0x01, 0x10])]);
    assert_eq!(looped, Err(WalkError::Loop { at, to }));
    let itself = extended(&[(0x16c, [0x23, 0, 0xc1, 0x16])]);
    assert_eq!(itself, Err(WalkError::Loop { at, to: 0x16c }));
    let crooked = extended(&[(0x16c, [0x23, 0, 0x21, 0x20])]);
    assert_eq!(crooked, Err(WalkError::Misaligned { at, to: 0x202 }));
    let low = extended(&[(0x16c, [0x23, 0, 0xc1, 0x0f])]);
    assert_eq!(low, Err(WalkError::TooLow { at, to: 0xfc, lowest: 0x100 }));
    let dead = extended(&[(0x14c, [0xff; 4])]);
    assert_eq!(dead, Err(WalkError::AllOnes { at: 0x14c }));
    assert_eq!(ExtendedCapabilities::new(image(&[0; 4096])).next(), None);
    let absent = ExtendedCapabilities::new(image(&[0xff; 4096])).next();
    assert_eq!(absent, Some(Err(WalkError::AllOnes { at: 0x100 })));

    let conventional = |pointer: u8, at: usize, header: [u8; 2]| {
        let mut space = images::endpoint();
        space[0x34] = pointer;
        space[at..at + 2].copy_from_slice(&header);
        Capabilities::new(image(&space)).take(1000).last().unwrap()
    };
    let error = WalkError::Loop { at: 0x80, to: 0x80 };
    assert_eq!(conventional(0x80, 0x80, [0x10, 0x80]), Err(error));
    let error = WalkError::Misaligned { at: 0x34, to: 0x81 };
    assert_eq!(conventional(0x81, 0x80, [0x10, 0x00]), Err(error));
    let error = WalkError::TooLow { at: 0x80, to: 0x3c, lowest: 0x40 };
    assert_eq!(conventional(0x80, 0x80, [0x10, 0x3c]), Err(error));
    assert_eq!(conventional(0x80, 0x80, [0xff, 0xff]), Err(WalkError::AllOnes { at: 0x80 }));
    let mut space = images::endpoint();
    space[0x06] = 0; // no capability list
    assert_eq!(Capabilities::new(image(&space)).next(), None);
}

#[test]
fn dvsec_lengths_that_do_not_fit_are_refused() {
    for (length, most) in [(0x0b, 0xf00), (0xf01, 0xf00), (0xfff, 0xf00)] {
        let mut space = images::endpoint();
        space[0x106..0x108].copy_from_slice(&(length << 4 | 3u16).to_le_bytes());
        let error = DvsecError::Length { at: 0x100, length, least: 0x0c, most };
        assert_eq!(Dvsecs::new(image(&space)).next(), Some(Err(error)));
    }
}

#[test]
fn short_buffers_are_refused_and_left_alone() {
    let dvsec = PortDvsec::read(image(&images::PORT), 0);
    let mut buffer = [UNTOUCHED; 0x27];
    assert_eq!(dvsec.put(&mut buffer, 0), Err(TooShort { need: 0x28, have: 0x27 }));
    assert_eq!(buffer, [UNTOUCHED; 0x27]);
}

/// A CXL.cache/mem range with these dwords at its start.
fn range(dwords: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
    bytes.resize(4096, 0);
    bytes
}

fn structures(range: &[u8]) -> Vec<Result<(u16, u8, u16), ArrayError>> {
    let found = Structures::new(image(range)).unwrap();
    found.map(|found| found.map(|found| (found.id.code(), found.version, found.pointer))).collect()
}

#[test]
fn capability_arrays_are_walked_to_their_end() {
    // An endpoint as QEMU shows it, and a host bridge of one port: its HDM entry and its RAS entry
    // have only their IDs cleared.
    let endpoint = range(&[0x0311_0001, 0x0802_0002, 0x0d82_0004, 0x1281_0005, 0x1281_0005]);
    let expected = [Ok((2, 2, 0x80)), Ok((4, 2, 0xd8)), Ok((5, 1, 0x128))];
    assert_eq!(structures(&endpoint), expected);
    let bridge =
        range(&[0x0511_0001, 0x0802_0000, 0x0d82_0004, 0x1281_0000, 0x2001_0006, 0x3001_7777]);
    assert_eq!(structures(&bridge), [Ok((4, 2, 0xd8)), Ok((6, 1, 0x200)), Ok((0x7777, 1, 0x300))]);

    let find = |range: &[u8], id| Structures::new(image(range)).unwrap().find(id);
    assert_eq!(find(&endpoint, StructureId::HdmDecoder).unwrap().pointer, 0x128);
    assert_eq!(find(&endpoint, StructureId::HdmDecoder).unwrap().encode().into_bits(), 0x1281_0005);
    assert_eq!(find(&bridge, StructureId::HdmDecoder), None);
    let twice = range(&[0x0211_0001, 0x1281_0005, 0x2003_0005]);
    assert_eq!(find(&twice, StructureId::HdmDecoder).unwrap().pointer, 0x200);
}

#[test]
fn broken_capability_arrays_are_refused_by_name() {
    let header = |dword| Structures::new(image(&range(&[dword]))).map(|_| ());
    assert_eq!(header(0xffff_ffff), Err(ArrayError::AllOnes));
    for found in [0, 0x0311_0002, 0x0310_0001, 0x0301_0001] {
        assert_eq!(header(found), Err(ArrayError::Header { found }));
    }
    // Higher versions are compatible.
    assert_eq!(header(0x0022_0001), Ok(()));

    let id = StructureId::HdmDecoder;
    let entry = 1;
    for (dword, error) in [
        (0xffff_ffff, ArrayError::EntryAllOnes { entry }),
        (0x12a1_0005, ArrayError::Misaligned { entry, id, pointer: 0x12a }),
        (0x0081_0005, ArrayError::InsideArray { entry, id, pointer: 0x008, array_end: 0x00c }),
        (0xfd41_0005, ArrayError::PastEnd { entry, id, pointer: 0xfd4, length: 0x30 }),
    ] {
        let found = structures(&range(&[0x0211_0001, dword, 0x0802_0002]));
        assert_eq!(found, [Err(error), Ok((2, 2, 0x80))], "{dword:#x}");
    }
    assert_eq!(structures(&range(&[0x0111_0001, 0xfd01_0005])), [Ok((5, 1, 0xfd0))]);
    assert_eq!(structures(&range(&[0x0111_0001, 0x0081_7777])), [Ok((0x7777, 1, 0x008))]);
}

#[test]
fn component_block_has_its_regions() {
    for (offset, region) in [
        (0x0000, Some(Region::Io)),
        (0x0fff, Some(Region::Io)),
        (0x1000, Some(Region::CacheMem)),
        (0x2000, Some(Region::Implementation)),
        (0xdfff, Some(Region::Implementation)),
        (0xe000, Some(Region::ArbMux)),
        (0xe3ff, Some(Region::ArbMux)),
        (0xe400, Some(Region::Reserved)),
        (0xffff, Some(Region::Reserved)),
        (0x1_0000, None),
    ] {
        assert_eq!(Region::at(offset), region, "{offset:#x}");
    }
    assert_eq!(Region::CacheMem.extent(), 0x1000..0x2000);
    let mut block = vec![0; 0x1_0000];
    block[0x1000] = 1;
    block[0x1fff] = 2;
    let found = cache_mem(&block).unwrap();
    assert_eq!((found.len(), found[0], found[0xfff]), (0x1000, 1, 2));
    assert_eq!(cache_mem(&block[..0x1fff]), None);
}

#[test]
fn back_invalidate_and_cache_id_structures_read_and_write_their_bytes() {
    let bytes = [0x01, 0, 0, 0, 0x01, 0, 0, 0, 0x01, 0x26, 0, 0];
    let table = BiRouteTable::read(image(&bytes), 0);
    assert!(table.capability.explicit_commit() && table.control.commit());
    assert!(table.status.committed() && table.status.settled());
    assert_eq!(table.status.timeout(), Some(2_000_000));
    assert_eq!(written!(table, 0x40, 0..0xc), bytes);
    assert_eq!(CommitStatus::from(0x0000_2802).timeout(), None);
    assert!(CommitStatus::from(0x0000_2802).error_not_committed());

    let bytes = [0x03, 0, 0, 0, 0x06, 0, 0, 0, 0x02, 0, 0, 0];
    let decoder = BiDecoder::read(image(&bytes), 0);
    assert!(decoder.capability.hdm_d() && decoder.capability.explicit_commit());
    assert!(!decoder.control.forward() && decoder.control.enable() && decoder.control.commit());
    assert_eq!(written!(decoder, 0x40, 0..0xc), bytes);

    let bytes = [
        0x03, 0x02, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, // three targets, two Type 2 devices
        0, 0, 0, 0, 0x01, 0x07, 0x00, 0x08, 0x01, 0x09, 0xff, 0xff,
    ];
    let table = CacheIdRouteTable::read(image(&bytes), 0);
    assert_eq!((table.capability.target_count(), table.capability.max_type2()), (3, 2));
    assert_eq!(table.length(), 0x16);
    let target = |id| table.target(image(&bytes), 0, id).map(|to| (to.valid(), to.port()));
    let targets = [0, 1, 2, 3].map(target);
    assert_eq!(targets, [Some((true, 7)), Some((false, 8)), Some((true, 9)), None]);
    assert_eq!(written!(table, 0x40, 0..0xc), bytes[..0xc]);

    let bytes = [0x01, 0, 0, 0, 0x0b, 0x05, 0x03, 0x02, 0x01, 0x75, 0, 0];
    let decoder = CacheIdDecoder::read(image(&bytes), 0);
    let control = decoder.control;
    assert!(control.forward() && control.assign() && !control.type2_present() && control.commit());
    assert_eq!((control.type2_id(), control.local_id(), control.trust_level()), (5, 3, 2));
    assert_eq!(decoder.status.timeout(), Some(700_000));
    assert_eq!(written!(decoder, 0x40, 0..0xc), bytes);
}

/// Device registers: an array of three, a mailbox at 0x100, the status at 0x60.
fn device_registers() -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    let mut put = |at: usize, piece: &[u8]| bytes[at..at + piece.len()].copy_from_slice(piece);
    put(0x00, &[0x00, 0x00, 0x01, 0x01, 0x03, 0x00, 0x00, 0x00]);
    put(0x10, &[0x01, 0x00, 0x02, 0x00, 0x40, 0, 0, 0, 0x08, 0, 0, 0]);
    put(0x20, &[0x02, 0x00, 0x01, 0x00, 0x00, 1, 0, 0, 0x20, 8, 0, 0]);
    put(0x30, &[0x00, 0x40, 0x01, 0x00, 0x60, 0, 0, 0, 0x08, 0, 0, 0]);
    put(0x60, &[0x14, 0, 0, 0, 0, 0, 0, 0]);
    put(0x100, &[0x6b, 0x10, 0x08, 0x00]); // 2 KiB, both interrupts; ready in 2 s; memory device
    put(0x104, &[0x01, 0, 0, 0]);
    put(0x108, &[0x00, 0x40, 0x45, 0x00, 0x00, 0, 0, 0]);
    put(0x110, &[0x01, 0, 0, 0, 0x06, 0, 0x34, 0x12]);
    put(0x118, &[0x00, 0x44, 0x63, 0, 0x03, 0, 0, 0]);
    bytes
}

#[test]
fn device_capability_array_leads_to_the_mailbox() {
    let bytes = device_registers();
    let found: Vec<_> = DeviceCapabilities::new(image(&bytes))
        .unwrap()
        .map(Result::unwrap)
        .map(|found| (found.id.code(), found.version, found.offset, found.length))
        .collect();
    assert_eq!(found, [(1, 2, 0x40, 8), (2, 1, 0x100, 0x820), (0x4000, 1, 0x60, 8)]);
    let find = |id| DeviceCapabilities::new(image(&bytes)).unwrap().find(id).unwrap();
    assert_eq!(find(DeviceCapabilityId::SecondaryMailbox), None);
    assert_eq!(find(DeviceCapabilityId::PrimaryMailbox).unwrap().offset, 0x100);

    let status: MemoryDeviceStatus = block::read(image(&bytes), 0x60);
    assert!(status.ready() && status.interface_ready());
    for broken in [0x04, 0x10, 0x15, 0x16, 0x18, 0x1c] {
        assert!(!MemoryDeviceStatus::from(broken).ready(), "{broken:#x}");
    }

    let mailbox = Mailbox::read(image(&bytes), 0x100);
    assert_eq!(mailbox.capabilities.payload_bytes(), Some(2048));
    assert_eq!((mailbox.capabilities.ready_time(), mailbox.capabilities.kind()), (2, 1));
    assert!(mailbox.control.doorbell() && mailbox.status_low.background());
    let command = mailbox::Command { opcode: Opcode::IdentifyMemoryDevice, length: 0x45 };
    assert_eq!(mailbox::Command::decode(mailbox.command_low, mailbox.command_high), command);
    assert_eq!(command.encode(), Some((mailbox.command_low, mailbox.command_high)));
    let code = mailbox::ReturnCode::from_code(mailbox.status_high.return_code());
    assert_eq!((code, mailbox.status_high.vendor_status()), (mailbox::ReturnCode::Busy, 0x1234));
    assert_eq!((mailbox.background_low.opcode(), mailbox.background_low.percent()), (0x4400, 99));
    assert_eq!(written!(mailbox, 0x40, 0..0x20), bytes[0x100..0x120]);

    let long = mailbox::Command { length: 0x1f_ffff, ..command };
    let (low, high) = long.encode().unwrap();
    assert_eq!((low.into_bits(), high.into_bits()), (0xffff_4000, 0x1f));
    assert_eq!(mailbox::Command::decode(low, high), long);
    assert_eq!(mailbox::Command { length: 0x20_0000, ..command }.encode(), None);
}

#[test]
fn broken_device_capability_arrays_are_refused_by_name() {
    let header = |bytes: [u8; 4]| DeviceCapabilities::new(image(&bytes)).map(|_| ());
    assert_eq!(header([0xff; 4]), Err(DeviceArrayError::AllOnes));
    assert_eq!(header([0, 0, 0, 0]), Err(DeviceArrayError::Header { found: 0 }));
    assert_eq!(header([1, 0, 1, 0]), Err(DeviceArrayError::Header { found: 0x1_0001 }));
    let place = |offset: u32, length: u32| {
        let mut bytes = device_registers();
        bytes[0x14..0x18].copy_from_slice(&offset.to_le_bytes());
        bytes[0x18..0x1c].copy_from_slice(&length.to_le_bytes());
        DeviceCapabilities::new(image(&bytes)).unwrap().next().unwrap()
    };
    assert!(place(0x40, 1).is_ok() && place(0xffff_fff0, 0xf).is_ok());
    for (offset, length) in [(0x42, 8), (0x3c, 8), (0x40, 0), (0xffff_fff0, 0x10)] {
        let error = DeviceArrayError::Place { entry: 0, offset, length };
        assert_eq!(place(offset, length), Err(error));
    }
}

#[test]
fn command_payloads_read_their_bytes() {
    let mut bytes = device_registers();
    let mut identify = Vec::from(*b"BWFW VERSION 00\0");
    for units in [9u64, 8, 1, 0] {
        identify.extend(units.to_le_bytes());
    }
    for entries in [1u16, 2, 3, 4] {
        identify.extend(entries.to_le_bytes());
    }
    identify.extend([0, 0, 1, 0, 0, 1, 0, 5, 0, 1, 2, 8, 0]);
    assert_eq!(identify.len(), 0x45);
    bytes[0x120..0x120 + 0x45].copy_from_slice(&identify);
    bytes[0x165] = UNTOUCHED;
    let found = IdentifyMemoryDevice::read(image(&bytes), 0x100, 0x45).unwrap();
    assert_eq!(&found.firmware_revision, b"BWFW VERSION 00\0");
    assert_eq!(mailbox::capacity_bytes(found.total), Some(9 << 28));
    assert_eq!((found.volatile_only.get(), found.persistent_only.get()), (8, 1));
    assert_eq!((found.informational_events.get(), found.fatal_events.get()), (1, 4));
    assert_eq!((found.label_storage.get(), found.poison_list), (0x1_0000, [0, 1, 0]));
    assert_eq!(found.inject_poison_limit.get(), 5);
    assert_eq!((found.poison_capabilities, found.qos_capabilities), (1, 2));
    assert_eq!(found.dynamic_capacity_events.get(), 8);
    assert_eq!(zerocopy::IntoBytes::as_bytes(&found), identify);

    // CXL 2.0 ends two bytes earlier; what lies there in the buffer is not the device's answer.
    let old = IdentifyMemoryDevice::read(image(&bytes), 0x100, 0x43).unwrap();
    assert_eq!(old.dynamic_capacity_events.get(), 0);
    let short = IdentifyMemoryDevice::read(image(&bytes), 0x100, 0x42);
    let opcode = Opcode::IdentifyMemoryDevice;
    assert_eq!(short, Err(ShortPayload { opcode, need: 0x43, have: 0x42 }));

    let partitions = [2u64, 7, 0, u64::MAX].map(u64::to_le_bytes).concat();
    bytes[0x120..0x140].copy_from_slice(&partitions);
    let found = PartitionInfo::read(image(&bytes), 0x100, 0x20).unwrap();
    assert_eq!(mailbox::capacity_bytes(found.active_volatile), Some(512 << 20));
    assert_eq!((found.active_persistent.get(), found.next_volatile.get()), (7, 0));
    assert_eq!(mailbox::capacity_bytes(found.next_persistent), None);
    let short = PartitionInfo::read(image(&bytes), 0x100, 0x1f);
    let opcode = Opcode::GetPartitionInfo;
    assert_eq!(short, Err(ShortPayload { opcode, need: 0x20, have: 0x1f }));
}

#[test]
fn configuration_spaces_have_their_text() {
    let endpoint = ConfigText(&images::endpoint()).to_string();
    assert_eq!(endpoint, include_str!("images/endpoint.txt"));
    let port = ConfigText(&images::root_port()).to_string();
    assert_eq!(port, include_str!("images/root_port.txt"));
}

#[test]
fn short_and_dead_configuration_spaces_have_their_text() {
    let space = images::endpoint();
    assert_eq!(
        ConfigText(&space[..63]).to_string(),
        "configuration space: 63 bytes hold no header\n"
    );
    assert_eq!(
        ConfigText(&[0xff; 64]).to_string(),
        "configuration space: vendor ID 0xffff, no function answers\n"
    );
    let text = |bytes: &[u8]| ConfigText(bytes).to_string();
    let whole = text(&space);
    let conventional = text(&space[..256]);
    assert!(whole.starts_with(&conventional) && conventional.ends_with("port 0\n"));
    assert!(conventional.starts_with(&text(&space[..64])));
    assert!(text(&space[..64]).ends_with("64-bit prefetchable memory\n"));
}

/// Table 8-22 of CXL r3.1; a name that fills its column would run into the value.
#[test]
fn every_capability_has_a_name_of_its_own_beside_its_entry() {
    const NAMES: [(u16, &str); 18] = [
        (0x0001, "capability array"),
        (0x0002, "RAS"),
        (0x0003, "security"),
        (0x0004, "link"),
        (0x0005, "HDM decoder"),
        (0x0006, "extended security"),
        (0x0007, "IDE"),
        (0x0008, "snoop filter"),
        (0x0009, "timeout/isolation"),
        (0x000a, "extended register"),
        (0x000b, "BI route table"),
        (0x000c, "BI decoder"),
        (0x000d, "Cache ID routes"),
        (0x000e, "Cache ID decoder"),
        (0x000f, "extended HDM"),
        (0x0010, "extended metadata"),
        (0x0011, "unknown 0x11"),
        (0xffff, "unknown 0xffff"),
    ];
    for (id, name) in NAMES {
        let entry = 0x8001_0000 | u32::from(id);
        let text = ComponentText(&range(&[0x0111_0001, entry])).to_string();
        let line = format!("  {name:<18}0x8001{id:04x}  at +0x800, version 1");
        assert_eq!(text.lines().nth(1), Some(&*line));
        assert!(name.len() < 18, "{name}");
    }
}

#[test]
fn capability_arrays_have_their_text() {
    let mut bytes =
        range(&[0x0611_0001, 0x0802_0002, 0x1281_0000, 0x1281_0005, 0x2001_000b, 0x12a1_000c]);
    bytes[0x18..0x1c].copy_from_slice(&[0x0d, 0x00, 0x01, 0x30]);
    bytes[0x200..0x20c].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 1, 0x26, 0, 0]);
    bytes[0x300..0x318]
        .copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 7, 0, 0, 0, 0]);
    let expected = "\
capability array: 6 entries, version 1, cache/mem version 1
  RAS               0x08020002  at +0x080, version 2
  HDM decoder       0x12810005  at +0x128, version 1
  BI route table    0x2001000b  at +0x200, version 1
  broken            capability array entry 5 (BI decoder) points to 0x12a, not a multiple of 4
  Cache ID routes   0x3001000d  at +0x300, version 1
BI route table
  capability        0x00000001  Explicit BI RT Commit Required
  control           0x00000001  BI RT Commit
  status            0x00002601  Committed, Commit Timeout Scale 0x6, Commit Timeout Base 0x2
Cache ID routes
  capability        0x00000002  Cache ID Target Count 0x2
  control           0x00000000
  status            0x00000000
  target 1          0x0701  port 7
";
    assert_eq!(ComponentText(&bytes).to_string(), expected);
    assert_eq!(
        ComponentText(&[0xff; 4096]).to_string(),
        "capability array: component registers read as all-ones: nothing answers\n"
    );
}
