//! Laws of the walkers, codes and codecs, on arbitrary bytes and values.
//!
//! **Invariant**: every bound here is one that the library's documentation states.

#![allow(clippy::unwrap_used)]

use cxl_regs::access::{Component, Features, Register};
use cxl_regs::block::{image, write_dword};
use cxl_regs::component::{self, ComponentText};
use cxl_regs::config::{
    BarKind, Bdf, BridgeHeader, Capabilities, EndpointHeader, ExtendedCapabilities,
    PrefetchableBase, Windows,
};
use cxl_regs::dvsec::device::{
    self, DeviceDvsec, DeviceDvsecTail, MediaType, MemoryClass, Range, Readiness,
};
use cxl_regs::dvsec::flex_bus::FlexBusTail;
use cxl_regs::dvsec::locator::{self, BlockId, BlockLocation, Locations};
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::mailbox::{self, DeviceCapabilities, IdentifyMemoryDevice, Opcode};
use cxl_regs::text::ConfigText;
use cxl_regs::{Hpa, Span};
use proptest::collection::vec;
use proptest::prelude::*;

/// Configuration spaces that get further than noise does: pointers mostly lead somewhere.
fn spaces() -> impl Strategy<Value = Vec<u8>> {
    let link = (0x40u16..0x400, 0x40u16..0x400, any::<[u8; 2]>(), 0u16..0x40, 0u16..11);
    (vec(any::<u8>(), 0..4097), vec(link, 0..40)).prop_map(|(mut bytes, links)| {
        let mut put = |at: u16, piece: &[u8]| {
            for (index, byte) in piece.iter().enumerate() {
                if let Some(place) = bytes.get_mut(usize::from(at) + index) {
                    *place = *byte;
                }
            }
        };
        put(0x06, &[0x10]);
        put(0x34, &[0x40]);
        let mut from = 0x100;
        for (at, to, noise, length, id) in links {
            let (at, to) = (at & !3, to & !3);
            put(at & 0xfc, &[noise[0], (to & 0xfc) as u8]);
            put(from, &(u32::from(to) << 20 | 0x1_0023).to_le_bytes());
            put(from + 4, &(u32::from(length) << 20 | 0x1_1e98).to_le_bytes());
            put(from + 8, &id.to_le_bytes());
            from = to;
        }
        bytes
    })
}

/// A CXL.cache/mem range whose header is good.
fn ranges() -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 4..4097), any::<u8>(), any::<bool>()).prop_map(|(mut bytes, size, keep)| {
        if keep {
            bytes[..4].copy_from_slice(&[1, 0, 0x11, size]);
        }
        bytes
    })
}

fn codes<T: Copy + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(values.to_vec())
}

prop_compose! {
    fn a_range()(
        base in 0u64..1 << 35,
        size in 0u64..1 << 35,
        readiness in codes(&[Readiness::Inactive, Readiness::Active, Readiness::Degraded]),
        media in codes(&[MediaType::Volatile, MediaType::NonVolatile, MediaType::Cdat]),
        class in codes(&[MemoryClass::Memory, MemoryClass::Storage, MemoryClass::Cdat]),
        wish in 0u8..8,
        active_timeout in 0u8..5,
    ) -> Range {
        let desired_interleave = device::desired_interleave(wish).unwrap();
        let (base, size) = (Hpa(base << 28), size << 28);
        Range { base, size, readiness, media, class, desired_interleave, active_timeout }
    }
}

fn a_window(top: u64) -> impl Strategy<Value = Option<Span>> {
    proptest::option::of((0..top, 1..=top).prop_map(move |(base, size)| {
        let size = size.min(top - base);
        Span::new(Hpa(base << 20), size << 20).unwrap()
    }))
}

proptest! {
    #[test]
    fn walks_end_within_their_bounds(bytes in spaces()) {
        let reader = image(&bytes);
        prop_assert!(Capabilities::new(reader).take(1000).count() <= 48 + 1);
        prop_assert!(ExtendedCapabilities::new(reader).take(1000).count() <= 960 + 1);
        let mut offsets: Vec<_> =
            ExtendedCapabilities::new(reader).flatten().map(|found| found.offset).collect();
        prop_assert!(offsets.iter().all(|offset| (0x100..0x1000).contains(offset)));
        let count = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        prop_assert_eq!(offsets.len(), count);
        for dvsec in Dvsecs::new(reader).flatten() {
            prop_assert!(u32::from(dvsec.offset) + u32::from(dvsec.length) <= 0x1000);
            if let Ok(locations) = Locations::new(&dvsec, reader) {
                prop_assert!(locations.count() <= 511);
            }
            if let Some(tail) = DeviceDvsecTail::of(&dvsec, reader) {
                prop_assert!(dvsec.length >= 0x3c, "{tail:?}");
            }
            if let Some(tail) = FlexBusTail::of(&dvsec, reader) {
                prop_assert!(dvsec.length >= 0x20, "{tail:?}");
            }
        }
    }

    #[test]
    fn a_walk_reads_nothing_outside_configuration_space(bytes in spaces()) {
        let inside = |offset: u16| {
            assert!(offset < 0x1000 && offset.is_multiple_of(4), "{offset:#x}");
            image(&bytes)(offset)
        };
        prop_assert!(Dvsecs::new(inside).take(1000).count() <= 960 + 1);
        prop_assert!(Capabilities::new(inside).take(1000).count() <= 48 + 1);
    }

    #[test]
    fn any_configuration_space_has_a_text(bytes in spaces()) {
        let text = ConfigText(&bytes).to_string();
        prop_assert!(text.lines().all(|line| !line.is_empty()));
        prop_assert!(text.ends_with('\n') && text.lines().count() < 100_000);
    }

    #[test]
    fn any_component_range_has_a_text_and_an_end(bytes in ranges()) {
        prop_assert!(ComponentText(&bytes).to_string().ends_with('\n'));
        if let Ok(found) = component::Capabilities::new(image(&bytes)) {
            let array_end = 4 + 4 * u16::from(found.header().size());
            let found: Vec<_> = found.flatten().collect();
            prop_assert!(found.len() <= 255);
            for found in found {
                prop_assert!(found.pointer >= array_end && found.pointer.is_multiple_of(4));
                prop_assert!(found.pointer + found.id.least_length() <= 0x1000);
            }
        }
    }

    #[test]
    fn device_capability_walks_end(mut bytes in vec(any::<u8>(), 8..2048), keep in any::<bool>()) {
        if keep {
            bytes[..4].copy_from_slice(&[0, 0, 1, 0]);
        }
        if let Ok(found) = DeviceCapabilities::new(image(&bytes)) {
            prop_assert!(found.count() <= 4096);
        }
    }

    #[test]
    fn payload_reads_stay_inside_what_the_device_gave(
        bytes in vec(any::<u8>(), 0..512),
        base in any::<u16>(),
        length in any::<u32>(),
    ) {
        if let Ok(found) = IdentifyMemoryDevice::read(image(&bytes), base, length) {
            prop_assert!(length >= 0x45 || found.dynamic_capacity_events.get() & 0xff00 == 0);
        }
    }

    #[test]
    fn functions_survive_the_way_through_ecam(bits in any::<u16>(), register in 0u16..0x1000) {
        let bdf = Bdf::from_bits(bits);
        let offset = bdf.ecam_offset(register).unwrap();
        prop_assert_eq!(Bdf::from_ecam_offset(offset), Some((bdf, register)));
        prop_assert_eq!(Bdf::new(bdf.bus(), bdf.device(), bdf.function()), Some(bdf));
    }

    #[test]
    fn ranges_survive_their_registers(range in a_range()) {
        match range.encode() {
            Ok(registers) => prop_assert_eq!(Range::decode(registers), Ok(range)),
            Err(error) => prop_assert!(range.base.0.checked_add(range.size).is_none(), "{error}"),
        }
    }

    #[test]
    fn legal_range_registers_survive_their_value(bytes in vec(any::<u8>(), 0x38)) {
        let registers = DeviceDvsec::read(image(&bytes), 0).ranges()[0];
        if let Ok(range) = Range::decode(registers) {
            let again = range.encode().unwrap();
            prop_assert_eq!((again.base(), again.size()), (registers.base(), registers.size()));
            prop_assert_eq!(Range::decode(again), Ok(range));
        }
    }

    #[test]
    fn windows_survive_their_registers(
        memory in a_window(1 << 12),
        narrow in a_window(1 << 12),
        wide in a_window((1 << 44) - 1),
        is_wide in any::<bool>(),
    ) {
        let width = PrefetchableBase::new().with_width(u8::from(is_wide));
        let header = BridgeHeader { pref_base: width, ..BridgeHeader::default() };
        let windows = Windows { memory, prefetchable: if is_wide { wide } else { narrow } };
        prop_assert_eq!(header.with_windows(windows).unwrap().windows(), windows);
    }

    #[test]
    fn bars_survive_their_registers(low in any::<u32>(), high in any::<u32>(), log in 4u32..63) {
        if let Ok(kind) = BarKind::decode(low) {
            prop_assert_eq!(kind.encode(), low & if kind == BarKind::Io { 1 } else { 0xf });
            let (again, upper) = kind.at(kind.address(low, high));
            prop_assert_eq!(kind.address(again, upper), kind.address(low, high));
            let log = if kind.registers() == 2 { log } else { log % 28 + 4 };
            let (low, high) = kind.written(1 << log, !0, !0);
            prop_assert_eq!(kind.size(low, high), Ok(Some(1 << log)));
        }
    }

    #[test]
    fn bar_sizes_are_powers_of_two(low in any::<u32>(), high in any::<u32>()) {
        if let Ok(kind) = BarKind::decode(low)
            && let Ok(Some(size)) = kind.size(low, high)
        {
            prop_assert!(size.is_power_of_two());
        }
    }

    #[test]
    fn register_locators_survive_their_bytes(
        entries in vec((any::<u8>(), 0u8..6, any::<u64>()), 0..20),
        base in (0u16..0x200).prop_map(|base| base & !3),
    ) {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(id, bar, offset)| {
                BlockLocation { id: BlockId::from_code(id), bar, offset: offset & !0xffff }
            })
            .collect();
        let mut bytes = [0xa5; 0x400];
        let length = locator::put(&mut bytes, base, 0, &entries).unwrap();
        let dvsec = cxl_regs::dvsec::Dvsec {
            offset: base,
            id: DvsecId::RegisterLocator,
            revision: 0,
            length,
        };
        let found: Vec<_> =
            Locations::new(&dvsec, image(&bytes)).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(found, entries);
    }

    #[test]
    fn commands_survive_their_registers(opcode in any::<u16>(), length in 0u32..1 << 21) {
        let command = mailbox::Command { opcode: Opcode::from_code(opcode), length };
        let (low, high) = command.encode().unwrap();
        prop_assert_eq!(mailbox::Command::decode(low, high), command);
    }

    #[test]
    fn codes_survive_their_values(code in any::<u16>()) {
        prop_assert_eq!(DvsecId::from_code(code).code(), code);
        prop_assert_eq!(component::CapabilityId::from_code(code).code(), code);
        prop_assert_eq!(BlockId::from_code(code as u8).code(), code as u8);
    }

    #[test]
    fn blocks_survive_their_bytes(bytes in vec(any::<u8>(), 0x40)) {
        let header = EndpointHeader::read(image(&bytes), 0);
        let mut buffer = [0xa5; 0x40];
        header.put(&mut buffer, 0).unwrap();
        prop_assert_eq!(EndpointHeader::read(image(&buffer), 0), header);
    }

    #[test]
    fn registers_of_one_dword_do_not_see_each_other(
        old in any::<u32>(),
        new in any::<u32>(),
        locked in any::<bool>(),
    ) {
        let who = (Component::Device, Features::ALL);
        let (control, status) = (device::Control::SPEC, device::Status::SPEC);
        let found = write_dword(DeviceDvsec::REGISTERS, 0x0c, who, locked, old, new);
        let low = control.write(who.0, who.1, locked, old & 0xffff, new & 0xffff);
        let high = status.write(who.0, who.1, locked, old >> 16, new >> 16);
        prop_assert_eq!(found, high << 16 | low);
    }
}
