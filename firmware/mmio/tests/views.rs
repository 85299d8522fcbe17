//! The views over a range of memory that is typed by hand, dword by dword (CXL r3.1 section 8.2.4).
//!
//! Registers are little-endian in memory, whatever the processor is that runs this.
//!
//! **Invariant**: every offset here is a number from the specification, none is the crate's.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::ptr::NonNull;

use cxl_mmio::{ComponentView, Mapped};
use cxl_regs::component::ArrayError;
use cxl_regs::hdm::{Control, GlobalControl};
use cxl_regs::mmio::Mmio;

/// A CXL.cache/mem range with two decoders at 0x100, as memory.
fn range() -> Vec<u32> {
    let mut dwords = vec![0; 0x400];
    dwords[0] = u32::to_le(0x0111_0001); // the array, one entry
    dwords[1] = u32::to_le(0x1003_0005); // HDM decoders, version 3, at 0x100
    dwords[0x40] = u32::to_le(0x0000_0301); // 2 decoders, selects on HPA bits 14:8
    dwords
}

fn view(dwords: &mut Vec<u32>) -> Result<ComponentView<'_>, ArrayError> {
    let start = NonNull::new(dwords.as_mut_ptr()).unwrap();
    // SAFETY: 4 KiB that this test owns; nobody touches the vector while the view lives.
    unsafe { ComponentView::new(start) }
}

#[test]
fn cells_lie_where_the_specification_has_them() {
    let mut dwords = range();
    let hdm = view(&mut dwords).unwrap().hdm().unwrap();
    assert_eq!(hdm.capability().into_bits(), 0x301);
    assert_eq!(hdm.decoders().len(), 2);
    hdm.set_global_control(GlobalControl::new().with_decoder_enable(true));
    let second = hdm.decoder(1).unwrap();
    let mut image = second.image();
    (image.base_low, image.base_high) = (0xD000_0000, 0x3);
    (image.size_low, image.size_high) = (0x1000_0000, 0x2);
    (image.route_low, image.route_high) = (0x4000_0000, 0x5);
    image.control = 0x0000_1310;
    second.set_image(image);
    assert_eq!(second.image(), image);
    assert!(hdm.decoder(2).is_none());

    let mut expected = range();
    expected[0x41] = u32::to_le(0x2); // HDM Decoder Enable
    // Decoder 1 is at 0x100 + 0x10 + 0x20.
    for (offset, value) in [
        (0x130, 0xD000_0000),
        (0x134, 0x3),
        (0x138, 0x1000_0000),
        (0x13C, 0x2),
        (0x140, 0x0000_1310),
        (0x144, 0x4000_0000),
        (0x148, 0x5),
    ] {
        expected[offset / 4] = u32::to_le(value);
    }
    assert_eq!(dwords, expected);
}

#[test]
fn control_alone_is_one_cell() {
    let mut dwords = range();
    let first = view(&mut dwords).unwrap().hdm().unwrap().decoder(0).unwrap();
    first.set_control(Control::from_bits(0x0000_1700));
    assert!(first.control().locked());
    let mut expected = range();
    expected[0x120 / 4] = u32::to_le(0x0000_1700);
    assert_eq!(dwords, expected);
}

#[test]
fn what_is_not_there_or_does_not_fit_is_none() {
    // Nothing answers.
    assert_eq!(view(&mut vec![u32::MAX; 0x400]).err(), Some(ArrayError::AllOnes));
    // No HDM entry.
    let mut dwords = range();
    dwords[1] = u32::to_le(0x1003_0002);
    assert!(view(&mut dwords).unwrap().hdm().is_none());
    // Two decoders take 0x50 bytes: at 0xFB0 they fit exactly, one dword further they do not.
    for (pointer, fits) in [(0xFB0u32, true), (0xFB4, false), (0xFFC, false)] {
        let mut dwords = range();
        dwords[1] = (pointer << 20 | 0x0003_0005).to_le();
        dwords[pointer as usize / 4] = u32::to_le(0x301);
        let hdm = view(&mut dwords).unwrap().hdm();
        assert_eq!(hdm.map(|hdm| hdm.decoders().len()), fits.then_some(2), "{pointer:#x}");
    }
    // Not a multiple of 4: no structure is there.
    let mut dwords = range();
    dwords[1] = u32::to_le(0x1023_0005);
    dwords[0x40] = u32::to_le(0x0301_0301);
    assert!(view(&mut dwords).unwrap().hdm().is_none());
    // A decoder count that no code names.
    let mut dwords = range();
    dwords[0x40] = u32::to_le(0x0000_030F);
    assert!(view(&mut dwords).unwrap().hdm().is_none());
}

#[test]
fn mapped_memory_is_read_and_written_by_physical_address() {
    const PHYSICAL: u64 = 0x10_0000;
    let mut memory = [0u64; 4];
    let distance = (memory.as_mut_ptr() as u64).wrapping_sub(PHYSICAL);
    // SAFETY: only addresses within `memory` are asked for, and nobody else touches it meanwhile.
    let mut mapped = unsafe { Mapped::new(distance) };
    mapped.write(PHYSICAL + 4, 0x89AB_CDEF);
    mapped.write_qword(PHYSICAL + 16, 0x0123_4567_89AB_CDEF);
    assert_eq!(mapped.read(PHYSICAL + 4), 0x89AB_CDEF);
    assert_eq!(mapped.read(PHYSICAL), 0);
    assert_eq!(mapped.read(PHYSICAL + 20), 0x0123_4567);
    let expected = [0x89AB_CDEF_0000_0000u64, 0, 0x0123_4567_89AB_CDEF, 0];
    assert_eq!(memory, expected.map(u64::from_le));
}
