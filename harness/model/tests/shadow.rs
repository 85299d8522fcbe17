//! What a guest sees of devices that are handed to it, by dwords: the contract that passthrough of CXL
//! devices has in Linux's VFIO, in the words of this specification, and the refusals.
//!
//! **Invariant**: hardware's registers and all expected values are typed by hand (CXL r3.1 sections
//! 8.1.3 and 8.2.4.20).

use cxl_model::device::{Effect, Reset};
use cxl_model::fabric::HdmImage;
use cxl_model::shadow::{DeviceShadow, ShadowDecoders, ShadowError};
use cxl_regs::dvsec::device::{Capability, Control, Control2, Lock};
use cxl_regs::dvsec::device::{
    DeviceDvsec, RangeBaseHigh, RangeBaseLow, RangeSizeHigh, RangeSizeLow,
};
use cxl_regs::hdm::{self, DecoderImage};
use cxl_regs::{Component, Dpa, Hpa, Span, Ways};

const GIB: u64 = 1 << 30;
/// Where hardware has its memory, and where the guest has it.
const HOST: u64 = 0x0800_4000_0000;
const GUEST: u64 = 0x1_8000_0000;

/// Committed and locked, host-only: IG 0, IW 0, bits 8, 9, 10 and 12.
const LOCKED: u32 = 0x1700;

fn decoder(base: u64, size: u64, control: u32, route: u64) -> DecoderImage {
    let [low, high] = [route as u32, (route >> 32) as u32];
    DecoderImage::from_dwords([
        base as u32,
        (base >> 32) as u32,
        size as u32,
        (size >> 32) as u32,
        control,
        low,
        high,
        0,
    ])
}

/// Two decoders (code 1), A11:8 and A14:12, HDM Decoder Enable set.
fn hardware(decoders: [DecoderImage; 2]) -> HdmImage {
    HdmImage { capability: 0x301, global_control: 2, decoders: decoders.to_vec() }
}

/// 512 MiB at the host's address, and nothing else.
fn one() -> HdmImage {
    hardware([decoder(HOST, GIB / 2, LOCKED, 0), DecoderImage::default()])
}

/// Mem_Enable and CONFIG_LOCK set, CXL Reset there; range 1 mirrors decoder 0, range 2 is at a place
/// of the host's that no decoder has.
fn dvsec() -> DeviceDvsec {
    let size = RangeSizeLow::from_bits(0x2000_004B);
    DeviceDvsec {
        capability: Capability::from_bits(0x00DE),
        control: Control::from_bits(0x0006),
        lock: Lock::from_bits(1),
        range1_size_high: RangeSizeHigh::new(),
        range1_size_low: size,
        range1_base_high: RangeBaseHigh::from_bits(0x800),
        range1_base_low: RangeBaseLow::from_bits(0x4000_0000),
        range2_size_low: size,
        range2_base_high: RangeBaseHigh::from_bits(0x900),
        range2_base_low: RangeBaseLow::from_bits(0x1000_0000),
        ..DeviceDvsec::new(3, 0x3C, 0)
    }
}

fn place(_: u8, host: Span) -> Option<Hpa> {
    Some(Hpa(host.base().0 - HOST + GUEST))
}

fn shadow() -> DeviceShadow {
    DeviceShadow::of(&one(), &dvsec(), place).expect("a shadow")
}

/// All dwords of the decoders that a guest can read.
fn all(shadow: &mut ShadowDecoders) -> Vec<u32> {
    (0..shadow.length()).step_by(4).map(|offset| shadow.read(offset)).collect()
}

const BASE_LOW: u16 = 0x10;
const BASE_HIGH: u16 = 0x14;
const SIZE_LOW: u16 = 0x18;
const CONTROL: u16 = 0x20;
const SPARE: u16 = 0x30;
const DWORDS: std::ops::Range<u16> = 0..0x38;

/// Before its first instruction the guest has a decoder that is committed and locked, as large as what
/// was handed over, at its own address; whatever it writes, it stays so, and so does hardware.
#[test]
fn a_guest_finds_its_decoder_committed_and_locked_and_can_only_look() {
    let mut shadow = shadow();
    let decoders = &mut shadow.decoders;
    let read = |decoders: &mut ShadowDecoders, offset| decoders.read(offset);
    assert_eq!(read(decoders, 0x00), 0x301);
    assert_eq!((read(decoders, BASE_LOW), read(decoders, BASE_HIGH)), (0x8000_0000, 1));
    assert_eq!((read(decoders, SIZE_LOW), read(decoders, 0x1C)), (0x2000_0000, 0));
    assert_eq!(read(decoders, CONTROL), LOCKED);
    let before = all(decoders);
    // Decommit, unlock, another base, size, type, interleave: each by itself and all at once.
    for offset in (BASE_LOW..SPARE).step_by(4) {
        for value in [0, u32::MAX, 0x1500, 0x1600, 0x1300, 0x9000_0000, 0x1711] {
            assert_eq!(decoders.write(offset, value), Effect::None, "{offset:#x} {value:#x}");
            assert_eq!(all(decoders), before, "{offset:#x} {value:#x}");
        }
    }
    assert_eq!(decoders.translate(Hpa(GUEST + GIB / 2 - 1)), Some(Dpa(GIB / 2 - 1)));
    assert_eq!(decoders.host(Hpa(GUEST + 0x1234)), Some(Hpa(HOST + 0x1234)));
    for outside in [GUEST - 1, GUEST + GIB / 2, HOST, 0] {
        assert_eq!((decoders.translate(Hpa(outside)), decoders.host(Hpa(outside))), (None, None));
    }
}

/// A decoder that hardware has not committed takes values and no commit: Error Not Committed, which
/// goes with Commit, and nothing is behind it meanwhile.
#[test]
fn a_spare_decoder_is_programmed_and_never_committed() {
    let mut shadow = shadow();
    let decoders = &mut shadow.decoders;
    let spare = GUEST + GIB;
    for (offset, value) in [(0, spare as u32), (4, (spare >> 32) as u32), (8, 0x1000_0000)] {
        let _ = decoders.write(SPARE + offset, value);
        assert_eq!(decoders.read(SPARE + offset), value, "the base makes its round");
    }
    for commit in [0x1200, 0x1300] {
        let _ = decoders.write(SPARE + 0x10, commit);
        assert_eq!(decoders.read(SPARE + 0x10), commit | 0x800);
        assert_eq!(decoders.translate(Hpa(spare)), None);
        let _ = decoders.write(SPARE + 0x10, 0x1000);
        assert_eq!(decoders.read(SPARE + 0x10), 0x1000);
    }
    assert_eq!(decoders.read(CONTROL), LOCKED);
}

/// No dword of decoders or DVSEC has an address of the host's, not even of a range that no decoder has;
/// what CONFIG_LOCK freezes stays, Control2 does not, and CXL Reset asks and ends.
#[test]
fn the_dvsec_shows_guest_addresses_and_takes_what_no_lock_covers() {
    let mut shadow = shadow();
    let base = |shadow: &DeviceShadow, at| (shadow.read_dvsec(at), shadow.read_dvsec(at + 4));
    assert_eq!(base(&shadow, 0x20), (1, 0x8000_0000));
    assert_eq!(base(&shadow, 0x30), (0, 0));
    assert_eq!(shadow.read_dvsec(0x0C) & 0xFFFF, 0x0006);
    assert_eq!(shadow.read_dvsec(0x14) & 1, 1);
    assert_eq!((shadow.read_dvsec(0x1C), shadow.read_dvsec(0x08) >> 16), (0x2000_004B, 0x00DE));
    let shown: Vec<u32> = DWORDS.step_by(4).map(|at| shadow.read_dvsec(at)).collect();
    assert!(shown.iter().all(|dword| ![0x800, 0x900, 0x4000_0000].contains(dword)), "{shown:x?}");
    for at in [0x0C, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x30, 0x34] {
        let _ = shadow.write_dvsec(at, 0, u32::MAX);
        let _ = shadow.write_dvsec(at, !0, u32::MAX);
    }
    let still: Vec<u32> = DWORDS.step_by(4).map(|at| shadow.read_dvsec(at)).collect();
    assert_eq!(still, shown);
    // Reset Mem Clr Enable, bit 3 of Control2, stays; Initiate CXL Reset, bit 2, reads 0.
    assert_eq!(shadow.write_dvsec(0x10, 0x8, 0xFFFF), Effect::Remap);
    assert_eq!(shadow.read_dvsec(0x10) & 0xFFFF, 0x8);
    assert_eq!(shadow.write_dvsec(0x10, 0xC, 0xFFFF), Effect::ResetSelf(Reset::Cxl));
    assert_eq!(shadow.read_dvsec(0x10) & 4, 0);
    shadow.reset(Reset::Cxl);
    let control2 = Control2::from_bits((shadow.read_dvsec(0x10) & 0xFFFF) as u16);
    assert!(!control2.initiate_reset());
    // CXL Reset Complete, bit 1 of Status2.
    assert_eq!(shadow.read_dvsec(0x10) >> 16 & 3, 2);
}

/// Whatever the guest resets, it has again what it had; only CXL.io's own reset leaves what it changed.
#[test]
fn a_reset_by_the_guest_brings_the_shadow_back() {
    for reset in Reset::ALL {
        let mut shadow = shadow();
        let before = all(&mut shadow.decoders);
        let ranges =
            |shadow: &DeviceShadow| [0x0C, 0x14, 0x20, 0x24].map(|at| shadow.read_dvsec(at));
        let dvsec = ranges(&shadow);
        // HDM Decoder Enable, which no lock covers, and a spare decoder.
        assert_eq!(shadow.decoders.write(0x04, 0), Effect::Remap);
        let _ = shadow.decoders.write(SPARE, 0x7000_0000);
        shadow.reset(reset);
        let after = all(&mut shadow.decoders);
        assert_eq!(after == before, reset != Reset::Flr, "{reset:?}");
        assert_eq!(ranges(&shadow), dvsec, "{reset:?}");
        assert_eq!(after[8], LOCKED, "{reset:?}");
        assert_eq!(shadow.decoders.host(Hpa(GUEST)), Some(Hpa(HOST)), "{reset:?}");
    }
}

/// Several decoders, in one window of the guest's or in several, with a skip that is the device's own.
#[test]
fn each_decoder_has_a_place_of_its_own() {
    let second = HOST + 4 * GIB;
    let both =
        hardware([decoder(HOST, GIB / 2, LOCKED, 0), decoder(second, GIB, LOCKED, 0x1000_0000)]);
    let apart = [GUEST, GUEST + 64 * GIB];
    for places in [[GUEST, GUEST + GIB / 2], apart] {
        let of = |decoder: u8, _| places.get(usize::from(decoder)).copied().map(Hpa);
        let mut shadow = ShadowDecoders::of(Component::Device, &both, of).expect("a shadow");
        let [first, last] = [places[0] + GIB / 2 - 8, places[1]];
        assert_eq!(shadow.host(Hpa(first)), Some(Hpa(HOST + GIB / 2 - 8)));
        assert_eq!(shadow.host(Hpa(last)), Some(Hpa(second)));
        // 512 MiB of decoder 0 and 256 MiB that are skipped lie in front.
        assert_eq!(shadow.translate(Hpa(last)), Some(Dpa(3 * GIB / 4)));
        assert_eq!(shadow.read(0x44), 0x1000_0000, "the skip is no host address");
        let guest: Vec<u64> = shadow.ranges().iter().map(|moved| moved.guest.base().0).collect();
        assert_eq!(guest, places);
    }
}

/// The guest's bridge has a decoder for each range behind it, by address, to the device's port, of the
/// device's type: here an accelerator beside an expander.
#[test]
fn a_bridge_matches_the_devices_behind_it() {
    let expander = shadow().decoders;
    // Device-coherent: bit 12 is 0.
    let accelerator = hardware([decoder(HOST, GIB, 0x0700, 0), DecoderImage::default()]);
    let lower = |_, _| Some(Hpa(GUEST - GIB));
    let accelerator = ShadowDecoders::of(Component::Device, &accelerator, lower).expect("a shadow");
    let capability = hdm::Capability::from_bits(0x382);
    let behind = [(&expander, 3), (&accelerator, 1)];
    let mut bridge = ShadowDecoders::bridge(capability, &behind).expect("decoders");
    let expected = [
        decoder(GUEST - GIB, GIB, 0x0700, 1),
        decoder(GUEST, GIB / 2, LOCKED, 3),
        DecoderImage::default(),
        DecoderImage::default(),
    ];
    assert_eq!(bridge.images().collect::<Vec<_>>(), expected);
    let before = all(&mut bridge);
    for offset in (BASE_LOW..0x50).step_by(4) {
        let _ = bridge.write(offset, 0);
        let _ = bridge.write(offset, 0x1300);
    }
    assert_eq!(all(&mut bridge), before);
    bridge.reset(Reset::Cold);
    assert_eq!(all(&mut bridge), before);
    let one = hdm::Capability::from_bits(0x300);
    let error = ShadowDecoders::bridge(one, &behind).map(|_| ());
    assert_eq!(error, Err(ShadowError::TooFewDecoders { have: 1, need: 2 }));
    let twice = [(&expander, 3), (&expander, 1)];
    let error = ShadowDecoders::bridge(capability, &twice).map(|_| ());
    let (guest, before) = (Hpa(GUEST), GUEST + GIB / 2);
    assert_eq!(error, Err(ShadowError::IllegalPlace { decoder: 1, guest, before }));
}

#[test]
fn what_cannot_be_handed_over_is_refused_by_name() {
    let refused = |hardware: &HdmImage, dvsec: &DeviceDvsec, at: fn(u8, Span) -> Option<Hpa>| {
        let error = DeviceShadow::of(hardware, dvsec, at).map(|_| ()).expect_err("a refusal");
        assert!(error.to_string().len() > 30, "{error}");
        error
    };
    let unlocked = hardware([decoder(HOST, GIB, 0x1600, 0), DecoderImage::default()]);
    let error = refused(&unlocked, &dvsec(), place);
    assert_eq!(error, ShadowError::NotLocked { decoder: 0, control: 0x1600 });
    // Two ways at 256 bytes.
    let shared = hardware([decoder(HOST, GIB, 0x1710, 0), DecoderImage::default()]);
    let error = refused(&shared, &dvsec(), place);
    assert_eq!(error, ShadowError::Interleaved { decoder: 0, ways: Ways::Two });
    let idle = hardware([DecoderImage::default(); 2]);
    assert_eq!(refused(&idle, &dvsec(), place), ShadowError::Unused);
    let host = Span::new(Hpa(HOST), GIB / 2).expect("a range");
    let error = refused(&one(), &dvsec(), |_, _| None);
    assert_eq!(error, ShadowError::NoPlace { decoder: 0, host });
    for guest in [GUEST + 4096, u64::MAX - GIB / 4] {
        let at = if guest == GUEST + 4096 {
            |_: u8, _: Span| Some(Hpa(GUEST + 4096))
        } else {
            |_: u8, _: Span| Some(Hpa(u64::MAX - GIB / 4))
        };
        let guest = Hpa(guest);
        let expected = ShadowError::IllegalPlace { decoder: 0, guest, before: 0 };
        assert_eq!(refused(&one(), &dvsec(), at), expected);
    }
    // Decoders go up together: the second one cannot lie below the first.
    let both = hardware([decoder(HOST, GIB, LOCKED, 0), decoder(HOST + GIB, GIB, LOCKED, 0)]);
    let error = refused(&both, &dvsec(), |decoder, _| {
        Some(Hpa(if decoder == 0 { GUEST } else { GUEST - 2 * GIB }))
    });
    let (guest, before) = (Hpa(GUEST - 2 * GIB), GUEST + GIB);
    assert_eq!(error, ShadowError::IllegalPlace { decoder: 1, guest, before });
    let off = HdmImage { global_control: 0, ..one() };
    assert_eq!(refused(&off, &dvsec(), place), ShadowError::Disabled);
    let off = DeviceDvsec { control: Control::from_bits(2), ..dvsec() };
    assert_eq!(refused(&one(), &off, place), ShadowError::Disabled);
    // Reserved interleave.
    let broken = hardware([decoder(HOST, GIB, 0x17F0, 0), DecoderImage::default()]);
    assert!(matches!(refused(&broken, &dvsec(), place), ShadowError::Illegal { decoder: 0, .. }));
}
