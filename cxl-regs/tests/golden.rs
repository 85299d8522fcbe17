//! Golden register values of the HDM structure (CXL r3.1 section 8.2.4.20), typed by hand.
//!
//! **Invariant**: no expected dword, mask or sentence here comes out of the crate. Every number was
//! put together from the specification's tables, bit by bit.

use cxl_regs::access::{Class, Component, Feature, Features, Field, Register, Rule, Spec};
use cxl_regs::hdm::{
    Capability, Control, DECODER_SIZE, DECODER_SPECS, DecoderImage, GLOBAL_SPECS, GlobalControl,
    decoder_offset, structure_length,
};
use cxl_regs::{
    Coherency, DecodeError, Decoder, Granularity, Hpa, Interleave, NotDecodable, Route, Span,
    Targets, Ways,
};

use Component::{Device, HostBridge, UpstreamPort};

// --- Capability and global control ---------------------------------------------------------------

#[test]
fn capability_of_a_host_bridge_reads_as_the_table_says() {
    // 0x382: count code 2, 8 targets, A11:8 and A14:12.
    let cap = Capability::from_bits(0x0000_0382);
    assert_eq!(cap.decoder_count(), 2);
    assert_eq!(cap.decoders(), Some(4));
    assert_eq!(cap.target_count(), 8);
    assert!(cap.interleave_11_8() && cap.interleave_14_12());
    assert!(!cap.poison_on_error() && !cap.ways_3_6_12() && !cap.ways_16() && !cap.uio());
    assert_eq!((cap.uio_decoders(), cap.mem_data_nxm(), cap.coherency_models()), (0, false, 0));
    assert_eq!(cap.selector_mask(), 0x7F00);
}

#[test]
fn capability_of_a_type_3_device_reads_as_the_table_says() {
    // 0x1B12: count code 2, target count 1 (ignored), A11:8, A14:12, 3/6/12 and 16 ways.
    let cap = Capability::from_bits(0x0000_1B12);
    assert_eq!(cap.decoders(), Some(4));
    assert_eq!(cap.target_count(), 1);
    assert!(cap.interleave_11_8() && cap.interleave_14_12() && !cap.poison_on_error());
    assert!(cap.ways_3_6_12() && cap.ways_16() && !cap.uio());
}

#[test]
fn every_single_capability_bit_lands_in_its_own_field() {
    let new = Capability::new;
    for (raw, typed) in [
        (0x0000_000C, new().with_decoder_count(0xC)),
        (0x0000_0040, new().with_target_count(4)),
        (0x0000_0100, new().with_interleave_11_8(true)),
        (0x0000_0200, new().with_interleave_14_12(true)),
        (0x0000_0400, new().with_poison_on_error(true)),
        (0x0000_0800, new().with_ways_3_6_12(true)),
        (0x0000_1000, new().with_ways_16(true)),
        (0x0000_2000, new().with_uio(true)),
        (0x000A_0000, new().with_uio_decoders(10)),
        (0x0010_0000, new().with_mem_data_nxm(true)),
        (0x0060_0000, new().with_coherency_models(3)),
    ] {
        assert_eq!(typed.into_bits(), raw);
        assert_eq!(Capability::from_bits(raw), typed);
    }
}

#[test]
fn selector_mask_follows_the_two_capability_bits() {
    for (raw, mask) in [(0x000, 0), (0x100, 0x0F00), (0x200, 0x7000), (0x300, 0x7F00)] {
        assert_eq!(Capability::from_bits(raw).selector_mask(), mask);
    }
}

#[test]
fn every_decoder_count_code_names_the_number_in_the_table() {
    let table: [Option<u8>; 16] = [
        Some(1),
        Some(2),
        Some(4),
        Some(6),
        Some(8),
        Some(10),
        Some(12),
        Some(14),
        Some(16),
        Some(20),
        Some(24),
        Some(28),
        Some(32),
        None,
        None,
        None,
    ];
    for (code, decoders) in (0u8..).zip(table) {
        assert_eq!(Capability::from_bits(u32::from(code)).decoders(), decoders, "code {code:#x}");
        if let Some(decoders) = decoders {
            assert_eq!(Capability::encode_decoders(decoders), Some(code));
        }
    }
    for unnamed in [0, 3, 5, 7, 9, 11, 18, 22, 26, 30, 31, 33, 255] {
        assert_eq!(Capability::encode_decoders(unnamed), None, "{unnamed} decoders");
    }
}

#[test]
fn global_control_has_poison_in_bit_0_and_enable_in_bit_1() {
    assert_eq!(GlobalControl::new().with_poison_on_error(true).into_bits(), 0x1);
    assert_eq!(GlobalControl::new().with_decoder_enable(true).into_bits(), 0x2);
    let both = GlobalControl::from_raw(0x3);
    assert!(both.poison_on_error() && both.decoder_enable());
}

#[test]
fn every_single_control_bit_lands_in_its_own_field() {
    let new = Control::new;
    for (raw, typed) in [
        (0x0000_0006, new().with_granularity(6)),
        (0x0000_00A0, new().with_ways(0xA)),
        (0x0000_0100, new().with_lock_on_commit(true)),
        (0x0000_0200, new().with_commit(true)),
        (0x0000_0400, new().with_committed(true)),
        (0x0000_0800, new().with_error_not_committed(true)),
        (0x0000_1000, new().with_host_only(true)),
        (0x0000_2000, new().with_back_invalidate(true)),
        (0x0000_4000, new().with_uio(true)),
        (0x0005_0000, new().with_uio_granularity(5)),
        (0x0090_0000, new().with_uio_ways(9)),
        (0x0B00_0000, new().with_set_position(0xB)),
    ] {
        assert_eq!(typed.into_bits(), raw);
        assert_eq!(Control::from_raw(raw), typed);
    }
}

#[test]
fn settled_and_locked_follow_the_status_bits() {
    // (control, settled, locked): lock 0x100, commit 0x200, committed 0x400, error 0x800.
    for (raw, settled, locked) in [
        (0x000, false, false),
        (0x100, false, false),
        (0x200, false, false),
        (0x300, false, false),
        (0x600, true, false),
        (0x700, true, true),
        (0x500, true, true),
        (0xB00, true, false),
        (0x800, true, false),
    ] {
        let control = Control::from_bits(raw);
        assert_eq!((control.settled(), control.locked()), (settled, locked), "{raw:#x}");
    }
}

#[test]
fn dwords_sit_at_the_offsets_of_the_table() {
    assert_eq!(DECODER_SIZE, 0x20);
    assert_eq!((decoder_offset(0), decoder_offset(1), decoder_offset(31)), (0x10, 0x30, 0x3F0));
    assert_eq!((structure_length(1), structure_length(10), structure_length(32)), (48, 336, 1040));
    assert_eq!(GLOBAL_SPECS.map(|spec| spec.offset), [0x00, 0x04]);
    assert_eq!(DECODER_SPECS.map(|spec| spec.offset), [0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18]);
    for spec in GLOBAL_SPECS.iter().chain(&DECODER_SPECS) {
        assert_eq!(spec.bytes, 4, "{}", spec.name);
    }
}

// --- Decoders ------------------------------------------------------------------------------------

/// Host bridge: 4 decoders, 8 targets, all selector bits.
const PORT: u32 = 0x0382;
/// The same with UIO (bit 13).
const PORT_UIO: u32 = 0x2382;
/// Device: 4 decoders, all selector bits, 3/6/12 and 16 ways.
const DEVICE: u32 = 0x1B12;

fn span(base: u64, size: u64) -> Span {
    Span::new(Hpa(base), size).expect("a legal range")
}

struct Golden {
    component: Component,
    capability: u32,
    /// As a committed decoder reads, with all kinds of state.
    read: [u32; 8],
    /// As software writes it: the same without state bits and without the reserved dword.
    written: [u32; 8],
    decoder: Decoder,
}

fn goldens() -> [Golden; 7] {
    use Granularity::{B256, B512, K1, K4, K16};
    use Ways::{Eight, Four, One, Three, Twelve, Two};
    let new = Interleave::new;
    [
        // Type 3, 4-way at 1 KiB (IW 2, IG 2), host-only, committed and locked, with a skip.
        Golden {
            component: Device,
            capability: DEVICE,
            read: [0x3000_0000, 0x12, 0x4000_0000, 0x1, 0x0000_1722, 0x5000_0000, 0x2, 0],
            written: [0x3000_0000, 0x12, 0x4000_0000, 0x1, 0x0000_1022, 0x5000_0000, 0x2, 0],
            decoder: Decoder {
                span: span(0x12_3000_0000, 0x1_4000_0000),
                interleave: new(Four, K1),
                coherency: Coherency::HostOnly,
                uio: None,
                set_position: 0,
                route: Route::Skip(0x2_5000_0000),
            },
        },
        // HDM-DB, 12-way at 512 bytes (IW A, IG 1), position 5, refused commit.
        Golden {
            component: Device,
            capability: DEVICE,
            read: [0x0000_0000, 0x4, 0xC000_0000, 0x0, 0x0500_2AA1, 0, 0, 0],
            written: [0x0000_0000, 0x4, 0xC000_0000, 0x0, 0x0500_20A1, 0, 0, 0],
            decoder: Decoder {
                span: span(0x4_0000_0000, 0xC000_0000),
                interleave: new(Twelve, B512),
                coherency: Coherency::BackInvalidate,
                uio: None,
                set_position: 5,
                route: Route::Skip(0),
            },
        },
        // Type 2 (HDM-D), one way, a device with only A11:8: one way needs no selector bit.
        Golden {
            component: Device,
            capability: 0x0100,
            read: [0xF000_0000, 0x0, 0x1000_0000, 0x0, 0x0000_0600, 0, 0, 0],
            written: [0xF000_0000, 0x0, 0x1000_0000, 0x0, 0x0000_0000, 0, 0, 0],
            decoder: Decoder {
                span: span(0xF000_0000, 0x1000_0000),
                interleave: new(One, B256),
                coherency: Coherency::Device,
                uio: None,
                set_position: 0,
                route: Route::Skip(0),
            },
        },
        // Device with UIO (bit 14) but without UIG and UIW, 3-way at 16 KiB (IW 8, IG 6).
        Golden {
            component: Device,
            capability: 0x3B12,
            read: [0x0000_0000, 0x8, 0x3000_0000, 0x0, 0x0000_5286, 0x1000_0000, 0, 0],
            written: [0x0000_0000, 0x8, 0x3000_0000, 0x0, 0x0000_5086, 0x1000_0000, 0, 0],
            decoder: Decoder {
                span: span(0x8_0000_0000, 0x3000_0000),
                interleave: new(Three, K16),
                coherency: Coherency::HostOnly,
                uio: Some(Interleave::NONE),
                set_position: 0,
                route: Route::Skip(0x1000_0000),
            },
        },
        // Host bridge, 8-way at 256 bytes: ports 0x10-0x13, 0x24-0x27, way 0 in the lowest byte.
        Golden {
            component: HostBridge,
            capability: PORT,
            read: [0, 0x80, 0, 0x40, 0x0000_1630, 0x1312_1110, 0x2726_2524, 0],
            written: [0, 0x80, 0, 0x40, 0x0000_1030, 0x1312_1110, 0x2726_2524, 0],
            decoder: Decoder {
                span: span(0x80_0000_0000, 0x40_0000_0000),
                interleave: new(Eight, B256),
                coherency: Coherency::HostOnly,
                uio: None,
                set_position: 0,
                route: Route::Targets(Targets([0x10, 0x11, 0x12, 0x13, 0x24, 0x25, 0x26, 0x27])),
            },
        },
        // Host bridge, 2-way at 16 KiB; ports repeat beyond the ways, UIG and UIW hold noise
        // without UIO: neither means anything.
        Golden {
            component: HostBridge,
            capability: PORT_UIO,
            read: [0x1000_0000, 0, 0x1000_0000, 0, 0x00F7_1016, 0x0707_0307, 0x0909_0909, 0],
            written: [0x1000_0000, 0, 0x1000_0000, 0, 0x0000_1016, 0x0707_0307, 0x0909_0909, 0],
            decoder: Decoder {
                span: span(0x1000_0000, 0x1000_0000),
                interleave: new(Two, K16),
                coherency: Coherency::HostOnly,
                uio: None,
                set_position: 0,
                route: Route::Targets(Targets([7, 3, 7, 7, 9, 9, 9, 9])),
            },
        },
        // Upstream port with UIO: 2-way at 4 KiB, UIO 4-way at 1 KiB, position 3; the reserved
        // dword is not zero, which is not the decoder's meaning.
        Golden {
            component: UpstreamPort,
            capability: PORT_UIO,
            read: [0, 0x1, 0x2000_0000, 0, 0x0322_5714, 0x0000_0201, 0, 0xDEAD_BEEF],
            written: [0, 0x1, 0x2000_0000, 0, 0x0322_5014, 0x0000_0201, 0, 0],
            decoder: Decoder {
                span: span(0x1_0000_0000, 0x2000_0000),
                interleave: new(Two, K4),
                coherency: Coherency::HostOnly,
                uio: Some(new(Four, K1)),
                set_position: 3,
                route: Route::Targets(Targets([1, 2, 0, 0, 0, 0, 0, 0])),
            },
        },
    ]
}

#[test]
fn golden_dwords_decode_to_the_typed_decoder() {
    for (n, golden) in goldens().into_iter().enumerate() {
        let capability = Capability::from_bits(golden.capability);
        for dwords in [golden.read, golden.written] {
            let image = DecoderImage::from_dwords(dwords);
            let decoded = Decoder::decode(&image, golden.component, capability);
            assert_eq!(decoded, Ok(golden.decoder), "golden {n}");
        }
    }
}

#[test]
fn typed_decoder_encodes_to_the_golden_dwords() {
    for (n, golden) in goldens().into_iter().enumerate() {
        let capability = Capability::from_bits(golden.capability);
        let image = golden.decoder.encode(golden.component, capability).unwrap();
        assert_eq!(image.to_dwords(), golden.written, "golden {n}");
    }
}

#[test]
fn image_accessors_join_and_split_the_dwords() {
    let image = DecoderImage::from_dwords([
        0x3000_0001,
        0x12,
        0x4FFF_FFFF,
        0x1,
        0x0000_1722,
        0x5400_0302,
        0x0807_0605,
        0xA5A5_A5A5,
    ]);
    // Bits 27:0 do not exist in a base, size or skip.
    assert_eq!(image.base(), 0x12_3000_0000);
    assert_eq!(image.size(), 0x1_4000_0000);
    assert_eq!(image.skip(), 0x0807_0605_5000_0000);
    assert_eq!(image.targets(), [0x02, 0x03, 0x00, 0x54, 0x05, 0x06, 0x07, 0x08]);
    assert_eq!(image.control().into_bits(), 0x0000_1722);
    // Nothing that was there before is left behind, and nothing beside it is touched.
    let stale = DecoderImage::from_dwords([0xA5A5_A5A5; 8]);
    let noise = 0xA5A5_A5A5u32;
    let n = noise;
    assert_eq!(stale.with_base(0x12_3000_0000).to_dwords(), [0x3000_0000, 0x12, n, n, n, n, n, n]);
    assert_eq!(stale.with_size(0x1_4000_0000).to_dwords(), [n, n, 0x4000_0000, 0x1, n, n, n, n]);
    assert_eq!(
        stale.with_control(Control::from_bits(0x1022)).to_dwords(),
        [n, n, n, n, 0x1022, n, n, n]
    );
    assert_eq!(stale.with_skip(0x2_5000_0000).to_dwords(), [n, n, n, n, n, 0x5000_0000, 0x2, n]);
    assert_eq!(
        stale.with_targets([1, 2, 3, 4, 5, 6, 7, 8]).to_dwords(),
        [n, n, n, n, n, 0x0403_0201, 0x0807_0605, n]
    );
}

#[test]
fn target_list_takes_eight_ports_and_uses_as_many_as_the_ways() {
    assert_eq!(Targets::new(&[]), Some(Targets([0; 8])));
    assert_eq!(Targets::new(&[9, 4]), Some(Targets([9, 4, 0, 0, 0, 0, 0, 0])));
    let eight = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(Targets::new(&eight), Some(Targets(eight)));
    assert_eq!(Targets::new(&[0; 9]), None);
    for (ways, used) in [
        (Ways::One, &eight[..1]),
        (Ways::Two, &eight[..2]),
        (Ways::Three, &eight[..3]),
        (Ways::Four, &eight[..4]),
        (Ways::Six, &eight[..6]),
        (Ways::Eight, &eight[..8]),
        (Ways::Twelve, &eight[..8]),
        (Ways::Sixteen, &eight[..8]),
    ] {
        assert_eq!(Targets(eight).used(ways), used);
    }
}

#[test]
fn share_is_the_size_divided_by_the_ways() {
    let shares = goldens().map(|golden| golden.decoder.share());
    assert_eq!(
        shares,
        [
            0x5000_0000,
            0x1000_0000,
            0x1000_0000,
            0x1000_0000,
            0x8_0000_0000,
            0x0800_0000,
            0x1000_0000
        ]
    );
}

/// One broken rule: where, what the registers hold, the error, and the sentence people read.
type Broken = (Component, u32, [u32; 8], DecodeError, &'static str);

#[rustfmt::skip]
fn broken() -> Vec<Broken> {
    use DecodeError::*;
    use cxl_regs::interleave::{ReservedGranularity as BadIg, ReservedWays as BadIw};
    const G3: u32 = 0xC000_0000; // 3 GiB
    vec![
        (Device, DEVICE, [0x0800_0000, 4, G3, 0, 0, 0, 0, 0],
         BaseUnaligned { base: 0x4_0800_0000 },
         "base 0x408000000 is not 256 MiB aligned"),
        (HostBridge, PORT, [0x0000_0001, 0, G3, 0, 0, 0, 0, 0],
         BaseUnaligned { base: 0x1 },
         "base 0x1 is not 256 MiB aligned"),
        (Device, DEVICE, [0, 4, 0xC000_0001, 0, 0, 0, 0, 0],
         SizeUnaligned { size: 0xC000_0001 },
         "size 0xc0000001 is not a multiple of 256 MiB"),
        (UpstreamPort, PORT, [0, 4, 0x0FFF_FFFF, 0, 0, 0, 0, 0],
         SizeUnaligned { size: 0x0FFF_FFFF },
         "size 0xfffffff is not a multiple of 256 MiB"),
        (Device, DEVICE, [0, 4, G3, 0, 0, 0x1000_0100, 0, 0],
         SkipUnaligned { skip: 0x1000_0100 },
         "DPA skip 0x10000100 is not a multiple of 256 MiB"),
        (Device, DEVICE, [0, 4, 0, 0, 0, 0, 0, 0],
         ZeroSize { base: 0x4_0000_0000 },
         "size is 0 (base 0x400000000): decodes nothing"),
        (HostBridge, PORT, [0, 0, 0, 0, 0, 0, 0, 0],
         ZeroSize { base: 0 },
         "size is 0 (base 0x0): decodes nothing"),
        // Ends exactly at 2^64, and beyond.
        (Device, DEVICE, [0xF000_0000, 0xFFFF_FFFF, 0x1000_0000, 0, 0, 0, 0, 0],
         Wraps { base: 0xFFFF_FFFF_F000_0000, size: 0x1000_0000 },
         "base 0xfffffffff0000000 + size 0x10000000 passes the end of the 64-bit space"),
        (HostBridge, PORT, [0, 0x8000_0000, 0, 0xC000_0000, 0, 0, 0, 0],
         Wraps { base: 0x8000_0000_0000_0000, size: 0xC000_0000_0000_0000 },
         "base 0x8000000000000000 + size 0xc000000000000000 passes the end of the 64-bit space"),
        (Device, DEVICE, [0, 4, G3, 0, 0x50, 0, 0, 0],
         ReservedWays(BadIw(5)),
         "interleave ways code 0x5 is reserved (defined: 0-4, 8-a)"),
        (HostBridge, PORT, [0, 4, G3, 0, 0xF0, 0, 0, 0],
         ReservedWays(BadIw(0xF)),
         "interleave ways code 0xf is reserved (defined: 0-4, 8-a)"),
        (Device, DEVICE, [0, 4, G3, 0, 0x07, 0, 0, 0],
         ReservedGranularity(BadIg(7)),
         "interleave granularity code 0x7 is reserved (defined: 0-6)"),
        (UpstreamPort, PORT, [0, 4, G3, 0, 0x0F, 0, 0, 0],
         ReservedGranularity(BadIg(0xF)),
         "interleave granularity code 0xf is reserved (defined: 0-6)"),
        (UpstreamPort, PORT_UIO, [0, 4, G3, 0, 0x0050_4000, 0, 0, 0],
         ReservedUioWays(BadIw(5)),
         "UIO: interleave ways code 0x5 is reserved (defined: 0-4, 8-a)"),
        (HostBridge, PORT_UIO, [0, 4, G3, 0, 0x0007_4000, 0, 0, 0],
         ReservedUioGranularity(BadIg(7)),
         "UIO: interleave granularity code 0x7 is reserved (defined: 0-6)"),
        (HostBridge, PORT, [0, 4, G3, 0, 0x80, 0x0003_0201, 0, 0],
         WaysNotAllowed { component: HostBridge, ways: Ways::Three },
         "3 ways on the host bridge, which can do 1, 2, 4 or 8"),
        (HostBridge, PORT, [0, 4, G3, 0, 0x90, 0x0403_0201, 0x0605, 0],
         WaysNotAllowed { component: HostBridge, ways: Ways::Six },
         "6 ways on the host bridge, which can do 1, 2, 4 or 8"),
        (UpstreamPort, PORT, [0, 4, 0, 1, 0x40, 0x0403_0201, 0x0807_0605, 0],
         WaysNotAllowed { component: UpstreamPort, ways: Ways::Sixteen },
         "16 ways on the upstream port, which can do 1, 2, 4 or 8"),
        (Device, 0x0312, [0, 4, G3, 0, 0x80, 0, 0, 0],
         WaysNotSupported { ways: Ways::Three },
         "3 ways on a device that does not advertise them"),
        // 16 ways advertised but not 3, 6, 12; and the other way round.
        (Device, 0x1312, [0, 4, G3, 0, 0xA0, 0, 0, 0],
         WaysNotSupported { ways: Ways::Twelve },
         "12 ways on a device that does not advertise them"),
        (Device, 0x0B12, [0, 4, 0, 1, 0x40, 0, 0, 0],
         WaysNotSupported { ways: Ways::Sixteen },
         "16 ways on a device that does not advertise them"),
        (HostBridge, 0x0322, [0, 4, G3, 0, 0x20, 0x0403_0201, 0, 0],
         TooFewTargets { ways: Ways::Four, have: 2 },
         "4 ways on a component with 2 targets a decoder"),
        (Device, DEVICE, [0, 4, 0, 1, 0x26, 0, 0, 0],
         NotDecodable(NotDecodable_(Ways::Four, Granularity::K16)),
         "4-way at 16 KiB needs HPA bit 15, decoders select on bits 8-14 only"),
        (HostBridge, PORT, [0, 4, 0, 1, 0x35, 0x0403_0201, 0x0807_0605, 0],
         NotDecodable(NotDecodable_(Ways::Eight, Granularity::K8)),
         "8-way at 8 KiB needs HPA bit 15, decoders select on bits 8-14 only"),
        (Device, 0x1912, [0, 4, 0, 1, 0x14, 0, 0, 0],
         SelectorNotSupported { need: 0x1000, have: 0x0F00 },
         "interleave selects on HPA bits 0x1000, the component on 0xf00"),
        (Device, 0x1A12, [0, 4, 0, 1, 0x23, 0, 0, 0],
         SelectorNotSupported { need: 0x1800, have: 0x7000 },
         "interleave selects on HPA bits 0x1800, the component on 0x7000"),
        (Device, DEVICE, [0, 4, 0x3000_0000, 0, 0x10, 0, 0, 0],
         SizeNotDivisible { size: 0x3000_0000, ways: Ways::Two },
         "size 0x30000000 is not a multiple of 256 MiB x 2 ways"),
        (Device, DEVICE, [0, 4, 0x4000_0000, 0, 0x80, 0, 0, 0],
         SizeNotDivisible { size: 0x4000_0000, ways: Ways::Three },
         "size 0x40000000 is not a multiple of 256 MiB x 3 ways"),
        (HostBridge, PORT, [0, 4, G3, 0, 0x20, 0x0203_0201, 0, 0],
         DuplicateTarget { port: 2, first: 1, second: 3 },
         "ways 1 and 3 both lead to port 0x02"),
        (UpstreamPort, PORT, [0, 4, G3, 0, 0x30, 0x4433_2211, 0x1177_6655, 0],
         DuplicateTarget { port: 0x11, first: 0, second: 7 },
         "ways 0 and 7 both lead to port 0x11"),
        (Device, DEVICE, [0, 4, G3, 0, 0x3000, 0, 0, 0],
         BackInvalidateHostOnly,
         "BI is set on a host-only coherent range (type 1)"),
        // Coherency models 1: device-coherent only; 2: host-only only.
        (Device, 0x0020_1B12, [0, 4, G3, 0, 0x1000, 0, 0, 0],
         CoherencyNotSupported { coherency: Coherency::HostOnly, models: 1 },
         "host-only coherent (HDM-H) on a device that supports coherency models 1"),
        (Device, 0x0040_1B12, [0, 4, G3, 0, 0x2000, 0, 0, 0],
         CoherencyNotSupported { coherency: Coherency::BackInvalidate, models: 2 },
         "device-coherent with back-invalidate (HDM-DB) on a device that supports coherency \
          models 2"),
        (Device, 0x0040_1B12, [0, 4, G3, 0, 0x0000, 0, 0, 0],
         CoherencyNotSupported { coherency: Coherency::Device, models: 2 },
         "device-coherent (HDM-D) on a device that supports coherency models 2"),
        (Device, DEVICE, [0, 4, G3, 0, 0x8000, 0, 0, 0],
         ReservedControlBits { bits: 0x8000 },
         "control has reserved bits 0x00008000 set"),
        (HostBridge, PORT_UIO, [0, 4, G3, 0, 0xF000_8000, 0, 0, 0],
         ReservedControlBits { bits: 0xF000_8000 },
         "control has reserved bits 0xf0008000 set"),
        // A device has no UIG and no UIW, with UIO and without.
        (Device, 0x3B12, [0, 4, G3, 0, 0x0021_0000, 0, 0, 0],
         ReservedControlBits { bits: 0x0021_0000 },
         "control has reserved bits 0x00210000 set"),
        (Device, 0x3B12, [0, 4, G3, 0, 0x0021_4000, 0, 0, 0],
         ReservedControlBits { bits: 0x0021_0000 },
         "control has reserved bits 0x00210000 set"),
        // Without the UIO capability there is no UIO bit, and a port has no position either.
        (Device, DEVICE, [0, 4, G3, 0, 0x4000, 0, 0, 0],
         ReservedControlBits { bits: 0x4000 },
         "control has reserved bits 0x00004000 set"),
        (HostBridge, PORT, [0, 4, G3, 0, 0x0300_4000, 0, 0, 0],
         ReservedControlBits { bits: 0x0300_4000 },
         "control has reserved bits 0x03004000 set"),
    ]
}

#[expect(non_snake_case, reason = "stands beside the variant of the same name in the table")]
fn NotDecodable_(ways: Ways, granularity: Granularity) -> NotDecodable {
    NotDecodable(Interleave::new(ways, granularity))
}

#[test]
fn each_broken_rule_has_its_own_error_and_sentence() {
    for (component, capability, dwords, error, sentence) in broken() {
        let image = DecoderImage::from_dwords(dwords);
        let decoded = Decoder::decode(&image, component, Capability::from_bits(capability));
        assert_eq!(decoded, Err(error), "{dwords:#010x?}");
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn encode_refuses_what_a_typed_decoder_can_still_break() {
    use DecodeError::*;
    let device = goldens()[0].decoder;
    let bridge = goldens()[4].decoder;
    let cases = [
        (
            Device,
            Decoder { span: span(0x1800_0000, 0x4000_0000), ..device },
            BaseUnaligned { base: 0x1800_0000 },
        ),
        (
            Device,
            Decoder { span: span(0x1000_0000, 0x4800_0000), ..device },
            SizeUnaligned { size: 0x4800_0000 },
        ),
        (
            HostBridge,
            Decoder { span: span(0x1000_0000, 0x1), ..bridge },
            SizeUnaligned { size: 0x1 },
        ),
        (
            Device,
            Decoder { route: Route::Skip(0x800_0000), ..device },
            SkipUnaligned { skip: 0x800_0000 },
        ),
        (Device, bridge, WrongRoute { component: Device }),
        (HostBridge, device, WrongRoute { component: HostBridge }),
        (UpstreamPort, device, WrongRoute { component: UpstreamPort }),
        (Device, Decoder { set_position: 16, ..device }, SetPositionTooLarge { position: 16 }),
        (
            HostBridge,
            Decoder { set_position: 255, ..bridge },
            SetPositionTooLarge { position: 255 },
        ),
        (
            Device,
            Decoder { uio: Some(Interleave::new(Ways::Two, Granularity::B256)), ..device },
            ReservedControlBits { bits: 0x0010_0000 },
        ),
    ];
    for (component, decoder, error) in cases {
        let capability = Capability::from_bits(if component == Device { 0x3B12 } else { PORT });
        assert_eq!(decoder.encode(component, capability), Err(error));
    }
    assert_eq!(
        WrongRoute { component: Device }.to_string(),
        "the device's decoder has a DPA skip, not a target list"
    );
    assert_eq!(
        WrongRoute { component: HostBridge }.to_string(),
        "the host bridge's decoder has a target list, not a DPA skip"
    );
    assert_eq!(
        SetPositionTooLarge { position: 16 }.to_string(),
        "set position 16 does not fit a field of 4 bits"
    );
}

#[test]
fn coherency_models_0_and_3_allow_every_range_type() {
    for models in [0x0000_0000, 0x0060_0000] {
        for control in [0x0000, 0x1000, 0x2000] {
            let image = DecoderImage::from_dwords([0, 4, 0x1000_0000, 0, control, 0, 0, 0]);
            let capability = Capability::from_bits(0x1B12 | models);
            assert!(
                Decoder::decode(&image, Device, capability).is_ok(),
                "{models:#x} {control:#x}"
            );
        }
    }
    // The model that a device names is accepted, and ports have no such field.
    for (component, capability, control) in [
        (Device, 0x0020_1B12, 0x2000),
        (Device, 0x0040_1B12, 0x1000),
        (HostBridge, 0x0020_0382, 0x1000),
    ] {
        let image = DecoderImage::from_dwords([0, 4, 0x1000_0000, 0, control, 0, 0, 0]);
        assert!(Decoder::decode(&image, component, Capability::from_bits(capability)).is_ok());
    }
}

// --- What a write can change ---------------------------------------------------------------------

const NONE: Features = Features::NONE;
const POISON: Features = Features::NONE.with(Feature::Poison);
const BI: Features = Features::NONE.with(Feature::BackInvalidate);
const UIO: Features = Features::NONE.with(Feature::Uio);
const BI_UIO: Features = BI.with(Feature::Uio);

/// Capability, global control, then base, size, control and route of a decoder.
type Masks = [u32; 9];

/// Control: IG, IW, lock, commit, type = 0x13ff; BI 0x2000; UIO 0x4000; UIG and UIW 0x00ff0000;
/// ISP 0x0f000000. Poison enable is bit 0 of global control, HDM Decoder Enable bit 1.
#[rustfmt::skip]
fn write_masks() -> Vec<(Component, Features, Masks)> {
    const F: u32 = 0xFFFF_FFFF;
    const U: u32 = 0xF000_0000;
    let mut rows = vec![
        (Device, NONE,   [0, 0x2, U, F, U, F, 0x0000_13FF, U, F]),
        (Device, POISON, [0, 0x3, U, F, U, F, 0x0000_13FF, U, F]),
        (Device, BI,     [0, 0x2, U, F, U, F, 0x0F00_33FF, U, F]),
        (Device, UIO,    [0, 0x2, U, F, U, F, 0x0000_53FF, U, F]),
        (Device, BI_UIO, [0, 0x2, U, F, U, F, 0x0F00_73FF, U, F]),
        (Device, Features::ALL, [0, 0x3, U, F, U, F, 0x0F00_73FF, U, F]),
    ];
    for port in [HostBridge, UpstreamPort] {
        rows.extend([
            (port, NONE,   [0, 0x0, U, F, U, F, 0x0000_13FF, F, F]),
            (port, POISON, [0, 0x1, U, F, U, F, 0x0000_13FF, F, F]),
            (port, BI,     [0, 0x0, U, F, U, F, 0x0000_33FF, F, F]),
            (port, UIO,    [0, 0x0, U, F, U, F, 0x0FFF_53FF, F, F]),
            (port, BI_UIO, [0, 0x0, U, F, U, F, 0x0FFF_73FF, F, F]),
            (port, Features::ALL, [0, 0x1, U, F, U, F, 0x0FFF_73FF, F, F]),
        ]);
    }
    rows
}

#[test]
fn write_masks_are_those_of_the_table() {
    for (component, features, masks) in write_masks() {
        for (spec, mask) in GLOBAL_SPECS.iter().chain(&DECODER_SPECS).zip(masks) {
            let got = spec.write_mask(component, features);
            assert_eq!(got, mask, "{} of a {component}, {features:?}: {got:#010x}", spec.name);
        }
    }
}

/// Read-only bits that keep what hardware put there: the constants of the capability register (a
/// device has no target and UIO decoder count, a port none of 3/6/12 ways, 16 ways and coherency),
/// HDM Decoder Enable in a port, Committed and Error Not Committed.
fn kept(component: Component) -> Masks {
    match component {
        Device => [0x0070_3F0F, 0, 0, 0, 0, 0, 0x0C00, 0, 0],
        HostBridge | UpstreamPort => [0x001F_27FF, 0x2, 0, 0, 0, 0, 0x0C00, 0, 0],
    }
}

#[test]
fn writes_change_the_mask_keep_status_and_clear_the_rest() {
    for (component, features, masks) in write_masks() {
        let rows = GLOBAL_SPECS.iter().chain(&DECODER_SPECS).zip(masks).zip(kept(component));
        for ((spec, mask), kept) in rows {
            for (old, new) in [(0, !0), (!0, 0), (0xA5A5_A5A5, 0x5A5A_3C3C), (!0, !0)] {
                assert_eq!(
                    spec.write(component, features, false, old, new),
                    new & mask | old & kept,
                    "{} of a {component}, {features:?}",
                    spec.name
                );
            }
        }
    }
}

#[test]
fn locked_decoder_refuses_every_write_and_global_control_none() {
    for (component, features, masks) in write_masks() {
        for (spec, mask) in DECODER_SPECS.iter().zip(&masks[2..]) {
            let status = if spec.offset == 0x10 { 0x0C00 } else { 0 };
            for (old, new) in [(0, !0), (!0, 0), (0xA5A5_A5A5, 0x5A5A_5A5A)] {
                assert_eq!(
                    spec.write(component, features, true, old, new),
                    old & (mask | status),
                    "{} of a {component}, {features:?}",
                    spec.name
                );
            }
        }
        let global = &GLOBAL_SPECS[1];
        assert_eq!(global.write(component, features, true, 0, !0), masks[1]);
    }
}

/// What QEMU lets software write (`hw/cxl/cxl-component-utils.c`, releases 7.2 to 10.1): every
/// dword of a decoder agrees with ours without optional features. Global control does not: QEMU
/// makes both bits writable in every component. The specification makes poison enable depend on
/// its capability bit, which QEMU leaves 0, and HDM Decoder Enable a device's alone.
#[test]
fn qemus_write_masks_differ_in_global_control_only() {
    const U: u32 = 0xF000_0000;
    const F: u32 = 0xFFFF_FFFF;
    for (component, qemu) in [
        (Device, [0, 0x3, U, F, U, F, 0x13FF, U, F]),
        (HostBridge, [0, 0x3, U, F, U, F, 0x13FF, F, F]),
        (UpstreamPort, [0, 0x3, U, F, U, F, 0x13FF, F, F]),
    ] {
        let ours = GLOBAL_SPECS.iter().chain(&DECODER_SPECS);
        for (spec, qemu) in ours.zip(qemu) {
            let expected = match (spec.name, component) {
                ("HDM Decoder Global Control", Device) => 0x2,
                ("HDM Decoder Global Control", _) => 0x0,
                _ => qemu,
            };
            assert_eq!(spec.write_mask(component, NONE), expected, "{} {component}", spec.name);
        }
    }
}

#[test]
fn each_access_class_writes_as_its_name_says() {
    use Class::*;
    const NEEDS: Option<Feature> = Some(Feature::Poison);
    // One bit of each (old, new) pair: 0→0, 0→1, 1→0, 1→1 from bit 4 up; what is left of it
    // unlocked, locked, and whether a write can change it at all.
    const OLD: u32 = 0b1100_0000;
    const NEW: u32 = 0b1010_0000;
    for (class, unlocked, locked, writable) in [
        (Reserved, 0b0000_0000, 0b0000_0000, false),
        (Ro, 0b1100_0000, 0b1100_0000, false),
        (Rw, 0b1010_0000, 0b1010_0000, true),
        (Rws, 0b1010_0000, 0b1010_0000, true),
        (Rwl, 0b1010_0000, 0b1100_0000, true),
        (Rwo, 0b1110_0000, 0b1110_0000, true),
        (Rw1c, 0b0100_0000, 0b0100_0000, true),
        (Rw1cs, 0b0100_0000, 0b0100_0000, true),
        (Trigger, 0b0000_0000, 0b0000_0000, true),
    ] {
        let rule = |class| Rule { class, needs: NEEDS };
        let fields: &'static [Field; 1] =
            Box::leak(Box::new([Field::split("field", 4, 4, rule(class), rule(Reserved))]));
        let spec = Spec { name: "register", offset: 0, bytes: 2, fields };
        let write = |component, features, locked| {
            spec.write(component, features, locked, !0xF0 | OLD, !0xF0 | NEW)
        };
        assert_eq!(write(Device, POISON, false), unlocked, "{class:?}");
        assert_eq!(write(Device, POISON, true), locked, "{class:?} locked");
        let mask = if writable { 0xF0 } else { 0 };
        assert_eq!(spec.write_mask(Device, POISON), mask, "{class:?}");
        // Without its feature, and in another component, the field is not there.
        let without = BI.with(Feature::CxlReset);
        assert_eq!(write(Device, without, false), 0);
        assert_eq!(write(HostBridge, POISON, false), 0);
        assert_eq!(write(UpstreamPort, POISON, false), 0);
        assert_eq!(fields[0].get(0x1234_5678), 7);
    }
}
