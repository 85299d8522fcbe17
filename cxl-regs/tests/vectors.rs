//! Interleave vectors typed by hand: codes, DPA arithmetic (CXL r3.1 section 8.2.4.20.13), window
//! arithmetic (section 9.18.1.3 and 9.18.1.4) and composition of levels.
//!
//! **Invariant**: every number here was worked out on paper from the formulas, none by the crate.

use cxl_regs::hdm::{Capability, DecoderImage};
use cxl_regs::interleave::{
    ReservedArithmetic, ReservedGranularity, ReservedWays, xor_maps_needed,
};
use cxl_regs::{
    Arithmetic, Coherency, Component, ComposeError, Decoder, Dpa, Granularity, Hpa, Interleave,
    Levels, NotDecodable, Selector, Size, Span, SpanError, Ways, XorMapError,
};

use Granularity::{B256, B512, K1, K2, K4, K8, K16};
use Ways::{Eight, Four, One, Six, Sixteen, Three, Twelve, Two};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn il(ways: Ways, granularity: Granularity) -> Interleave {
    Interleave::new(ways, granularity)
}

// --- Codes ---------------------------------------------------------------------------------------

#[test]
fn all_sixteen_ways_codes_mean_what_the_table_says() {
    // code: (ways, count, power of two, selector bits, has three)
    let table = [
        Some((One, 1, 1, 0, false)),
        Some((Two, 2, 2, 1, false)),
        Some((Four, 4, 4, 2, false)),
        Some((Eight, 8, 8, 3, false)),
        Some((Sixteen, 16, 16, 4, false)),
        None,
        None,
        None,
        Some((Three, 3, 1, 0, true)),
        Some((Six, 6, 2, 1, true)),
        Some((Twelve, 12, 4, 2, true)),
        None,
        None,
        None,
        None,
        None,
    ];
    for (code, row) in (0u8..).zip(table) {
        match row {
            Some((ways, count, power, bits, three)) => {
                assert_eq!(Ways::decode(code), Ok(ways));
                assert_eq!(ways.encode(), code);
                assert_eq!(ways.count(), count);
                assert_eq!(ways.power_of_two(), power);
                assert_eq!(ways.selector_bits(), bits);
                assert_eq!(xor_maps_needed(ways), bits as usize);
                assert_eq!(ways.has_three(), three);
                assert_eq!(Ways::from_count(count), Some(ways));
            }
            None => assert_eq!(Ways::decode(code), Err(ReservedWays(code.into()))),
        }
    }
    assert_eq!(Ways::ALL, [One, Two, Four, Eight, Sixteen, Three, Six, Twelve]);
    for wide in [0x10, 0x11, 0x18, 0xFF] {
        assert_eq!(Ways::decode(wide), Err(ReservedWays(wide)));
    }
    for count in [0, 5, 7, 9, 10, 11, 13, 14, 15, 17, 24, 32, u32::MAX] {
        assert_eq!(Ways::from_count(count), None, "{count} ways");
    }
}

#[test]
fn all_sixteen_granularity_codes_mean_what_the_table_says() {
    let table = [
        (B256, 256, 8),
        (B512, 512, 9),
        (K1, 1024, 10),
        (K2, 2048, 11),
        (K4, 4096, 12),
        (K8, 8192, 13),
        (K16, 16384, 14),
    ];
    for (code, (granularity, bytes, shift)) in (0u8..).zip(table) {
        assert_eq!(Granularity::decode(code), Ok(granularity));
        assert_eq!(granularity.encode(), code);
        assert_eq!(granularity.bytes(), bytes);
        assert_eq!(granularity.shift(), shift);
        assert_eq!(Granularity::from_bytes(bytes), Some(granularity));
    }
    assert_eq!(Granularity::ALL, table.map(|row| row.0));
    for code in [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, u32::MAX] {
        assert_eq!(Granularity::decode(code), Err(ReservedGranularity(code)));
    }
    for bytes in [0, 1, 128, 255, 257, 768, 3000, 32768, 1 << 63, u64::MAX] {
        assert_eq!(Granularity::from_bytes(bytes), None, "{bytes} bytes");
    }
}

#[test]
fn two_arithmetic_codes_are_defined() {
    assert_eq!(Arithmetic::decode(0u8), Ok(Arithmetic::Modulo));
    assert_eq!(Arithmetic::decode(1u8), Ok(Arithmetic::Xor));
    assert_eq!((Arithmetic::Modulo.encode(), Arithmetic::Xor.encode()), (0, 1));
    for code in [2, 3, 15, 255] {
        assert_eq!(Arithmetic::decode(code), Err(ReservedArithmetic(code)));
    }
}

// --- One set -------------------------------------------------------------------------------------

/// (ways, granularity, HPA offset, DPA offset, position)
const DPA_VECTORS: [(Ways, Granularity, u64, u64, u32); 11] = [
    (One, B256, 0x1234_5678, 0x1234_5678, 0),
    (Two, B256, 0x1234_5678, 0x091A_2B78, 0),
    (Four, K4, 0x1234_5678, 0x048D_1678, 1),
    (Eight, B512, 0x1234_5678, 0x0246_8A78, 3),
    (Sixteen, B256, 0x1234_5678, 0x0123_4578, 6),
    (Three, B256, 0x1234_5678, 0x0611_7278, 0),
    (Three, K1, 0x2FFF_FFFF, 0x0FFF_FFFF, 2),
    (Six, B256, 0x1234_5678, 0x0308_B978, 0),
    (Six, B512, 0x5FFF_FFFF, 0x0FFF_FFFF, 5),
    (Twelve, B256, 0x1234_5678, 0x0184_5C78, 6),
    (Twelve, K1, 0xBFFF_FFFF, 0x0FFF_FFFF, 11),
];

#[test]
fn dpa_vectors_hold_in_both_directions() {
    for (ways, granularity, hpa, dpa, position) in DPA_VECTORS {
        let set = il(ways, granularity);
        assert_eq!(set.dpa_offset(hpa), dpa, "{set}: {hpa:#x}");
        assert_eq!(set.position(hpa), position, "{set}: {hpa:#x}");
        assert_eq!(set.hpa_offset(position, dpa), Some(hpa), "{set}: {position}, {dpa:#x}");
        // A window at a base that is a multiple of the stripe agrees.
        let base = Hpa(3 * 16 * GIB);
        let selector = Selector::modulo(set);
        assert_eq!(selector.position(Hpa(base.0 + hpa)), position);
        assert_eq!(selector.hpa(base, position, dpa), Some(Hpa(base.0 + hpa)));
    }
}

#[test]
fn the_specifications_worked_example_comes_out() {
    // Decoder 0: 32 GiB at 32 GiB; decoder 1: 4 GiB at 128 GiB; both 8-way at 512 bytes (IW 3, IG
    // 1), no skip. HPA 129 GiB + 1028 is decoder 1, DPA 4 GiB + 0x08000004.
    let capability = Capability::from_bits(0x0310);
    let decoder = |dwords| {
        let image = DecoderImage::from_dwords(dwords);
        Decoder::decode(&image, Component::Device, capability).unwrap()
    };
    let first = decoder([0, 0x08, 0, 0x08, 0x31, 0, 0, 0]);
    let second = decoder([0, 0x20, 0, 0x01, 0x31, 0, 0, 0]);
    let hpa = Hpa(129 * GIB + 1028);
    assert!(!first.span.contains(hpa) && second.span.contains(hpa));
    assert_eq!(first.share(), 4 * GIB);
    let offset = second.span.offset_of(hpa).unwrap();
    assert_eq!(second.interleave.dpa_offset(offset), 0x0800_0004);
}

#[test]
fn members_and_addresses_that_do_not_exist_have_no_host_address() {
    for ways in Ways::ALL {
        let set = il(ways, B256);
        assert!(set.hpa_offset(ways.count() - 1, 0).is_some());
        assert_eq!(set.hpa_offset(ways.count(), 0), None);
        assert_eq!(Selector::modulo(set).hpa(Hpa(0), ways.count(), 0), None);
        assert!(Selector::modulo(set).hpa(Hpa(0), ways.count() - 1, 0).is_some());
    }
    const MAX: u64 = u64::MAX;
    // (ways, granularity, position, DPA offset, HPA offset): the last one that fits, the next.
    for (ways, granularity, position, dpa, hpa) in [
        (One, B256, 0, MAX, Some(MAX)),
        (Two, B256, 1, 0x7FFF_FFFF_FFFF_FFFF, Some(MAX)),
        (Two, B256, 0, 0x8000_0000_0000_0000, None),
        (Four, K16, 3, 0x3FFF_FFFF_FFFF_FFFF, Some(MAX)),
        (Four, K16, 0, 0x4000_0000_0000_0000, None),
        (Three, B256, 0, 0x5555_5555_5555_55FF, Some(MAX)),
        (Three, B256, 1, 0x5555_5555_5555_5500, None),
        (Three, B256, 0, 0x5555_5555_5555_5600, None),
        (Twelve, B256, 3, 0x1555_5555_5555_55FF, Some(MAX)),
        (Twelve, B256, 4, 0x1555_5555_5555_5500, None),
        (Sixteen, B256, 15, MAX, None),
        (Twelve, K16, 11, MAX, None),
    ] {
        let set = il(ways, granularity);
        assert_eq!(set.hpa_offset(position, dpa), hpa, "{set}: {position}, {dpa:#x}");
        let selected = Selector::modulo(set).hpa(Hpa(0), position, dpa);
        assert_eq!(selected, hpa.map(Hpa), "{set}: {position}, {dpa:#x}");
    }
    // The sum with the base has to fit too.
    let top = Hpa(0xFFFF_FFFF_F000_0000);
    let one = Selector::modulo(Interleave::NONE);
    assert_eq!(one.hpa(top, 0, 0x0FFF_FFFF), Some(Hpa(MAX)));
    assert_eq!(one.hpa(top, 0, 0x1000_0000), None);
}

/// The pairs that need HPA bit 15 or more, with the highest bit they need.
const NOT_DECODABLE: [(Ways, Granularity, u32); 7] = [
    (Four, K16, 15),
    (Eight, K8, 15),
    (Eight, K16, 16),
    (Sixteen, K4, 15),
    (Sixteen, K8, 16),
    (Sixteen, K16, 17),
    (Twelve, K16, 15),
];

#[test]
fn forty_nine_of_fifty_six_pairs_are_decodable() {
    let mut decodable = 0;
    for ways in Ways::ALL {
        for granularity in Granularity::ALL {
            let set = il(ways, granularity);
            let refused = NOT_DECODABLE.iter().find(|row| (row.0, row.1) == (ways, granularity));
            match refused {
                None => {
                    decodable += 1;
                    assert_eq!(set.decodable(), Ok(()), "{set}");
                }
                Some((_, _, top)) => {
                    let error = set.decodable().unwrap_err();
                    assert_eq!(error, NotDecodable(set));
                    assert_eq!(
                        error.to_string(),
                        format!("{set} needs HPA bit {top}, decoders select on bits 8-14 only")
                    );
                }
            }
        }
    }
    assert_eq!(decodable, 49);
}

#[test]
fn masks_stripes_and_shares_are_those_worked_out_by_hand() {
    for (ways, granularity, mask, stripe) in [
        (One, K16, 0x0000, 16384),
        (Two, B256, 0x0100, 512),
        (Four, K1, 0x0C00, 4096),
        (Eight, K4, 0x7000, 32768),
        (Sixteen, B512, 0x1E00, 8192),
        (Three, B256, 0x0000, 768),
        (Six, K2, 0x0800, 12288),
        (Twelve, K8, 0x6000, 98304),
    ] {
        let set = il(ways, granularity);
        assert_eq!((set.selector_mask(), set.stripe()), (mask, stripe), "{set}");
    }
    for (ways, size, share) in [
        (One, 256 * MIB, Some(256 * MIB)),
        (Two, 256 * MIB, None),
        (Two, 512 * MIB, Some(256 * MIB)),
        (Two, 768 * MIB, None),
        (Three, 768 * MIB, Some(256 * MIB)),
        (Three, 1024 * MIB, None),
        (Twelve, 6 * GIB, Some(512 * MIB)),
        (Sixteen, 4 * GIB, Some(256 * MIB)),
        (Sixteen, 2 * GIB, None),
        (One, 256 * MIB + 1, None),
    ] {
        assert_eq!(il(ways, B256).share(size), share, "{ways} ways of {size:#x}");
    }
}

// --- Windows -------------------------------------------------------------------------------------

#[test]
fn xor_vectors_hold() {
    let two = Selector::xor(il(Two, B256), &[0x1_0100]).unwrap();
    for (hpa, position) in
        [(0x1_0000_0000, 0), (0x1_0000_0100, 1), (0x1_0001_0000, 1), (0x1_0001_0100, 0)]
    {
        assert_eq!(two.position(Hpa(hpa)), position, "{hpa:#x}");
    }
    let four = Selector::xor(il(Four, B256), &[0x1_0100, 0x2_0200]).unwrap();
    for (hpa, position) in [(0x1_0000_0300, 3), (0x1_0003_0300, 0), (0x1_0001_0300, 2)] {
        assert_eq!(four.position(Hpa(hpa)), position, "{hpa:#x}");
    }
    // Back again: the device's address is the same as without XOR, the granule is not.
    assert_eq!(two.hpa(Hpa(4 * GIB), 1, 0x8000), Some(Hpa(0x1_0001_0000)));
    assert_eq!(two.hpa(Hpa(4 * GIB), 0, 0x8000), Some(Hpa(0x1_0001_0100)));
    assert_eq!(four.hpa(Hpa(4 * GIB), 2, 0x4000), Some(Hpa(0x1_0001_0300)));
    assert_eq!(two.interleave(), il(Two, B256));
    assert_eq!(four.maps()[..2], [0x1_0100, 0x2_0200]);
    assert_eq!(Selector::modulo(il(Sixteen, B512)).maps(), [0x200, 0x400, 0x800, 0x1000]);
}

#[test]
fn six_and_twelve_way_windows_start_where_their_base_lies() {
    // 4 GiB is not a multiple of 3 granules: the first granule is not member 0's.
    let six: [u32; 8] = [4, 5, 0, 1, 2, 3, 4, 5];
    let twelve: [u32; 14] = [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5];
    let three: [u32; 4] = [1, 2, 0, 1];
    for (ways, positions) in [(Three, &three[..]), (Six, &six[..]), (Twelve, &twelve[..])] {
        // Maps of the selector bit alone are plain modulo.
        let modulo = Selector::modulo(il(ways, B256));
        let xor = Selector::xor(il(ways, B256), &[0x100, 0x200]).unwrap();
        for (k, &position) in (0u64..).zip(positions) {
            let hpa = Hpa(4 * GIB + k * 256);
            assert_eq!(modulo.position(hpa), position, "{ways} ways, granule {k}");
            assert_eq!(xor.position(hpa), position, "{ways} ways, granule {k}");
            let round = k / u64::from(ways.count()) * 256;
            assert_eq!(modulo.hpa(Hpa(4 * GIB), position, round + 5), Some(Hpa(hpa.0 + 5)));
        }
    }
}

#[test]
fn xor_maps_that_would_lose_granules_are_refused() {
    for (ways, granularity, maps, error, sentence) in [
        (
            Two,
            B256,
            &[][..],
            XorMapError::TooFew { need: 1, have: 0 },
            "the interleave needs 1 XOR maps, 0 given",
        ),
        (
            Twelve,
            K1,
            &[0x400][..],
            XorMapError::TooFew { need: 2, have: 1 },
            "the interleave needs 2 XOR maps, 1 given",
        ),
        (
            Sixteen,
            B256,
            &[0x100, 0x200, 0x400][..],
            XorMapError::TooFew { need: 4, have: 3 },
            "the interleave needs 4 XOR maps, 3 given",
        ),
        (
            Two,
            B256,
            &[0][..],
            XorMapError::WrongLowestBit { index: 0, map: 0, expected_bit: 8 },
            "XOR map 0 is 0x0: its lowest set bit must be HPA bit 8",
        ),
        (
            Four,
            K1,
            &[0x1_0400, 0x2_0400][..],
            XorMapError::WrongLowestBit { index: 1, map: 0x2_0400, expected_bit: 11 },
            "XOR map 1 is 0x20400: its lowest set bit must be HPA bit 11",
        ),
        (
            Two,
            B512,
            &[0x1_0100][..],
            XorMapError::WrongLowestBit { index: 0, map: 0x1_0100, expected_bit: 9 },
            "XOR map 0 is 0x10100: its lowest set bit must be HPA bit 9",
        ),
    ] {
        assert_eq!(Selector::xor(il(ways, granularity), maps), Err(error));
        assert_eq!(error.to_string(), sentence);
    }
    // One record serves narrower windows: what they do not need is not judged.
    for ways in [One, Three] {
        assert!(Selector::xor(il(ways, B256), &[]).is_ok());
        assert_eq!(Selector::xor(il(ways, B256), &[0, 0]), Selector::xor(il(ways, B256), &[]));
    }
    let narrow = Selector::xor(il(Two, B256), &[0x1_0100]);
    assert_eq!(Selector::xor(il(Two, B256), &[0x1_0100, 0]), narrow);
}

// --- Levels --------------------------------------------------------------------------------------

const FLAT: Interleave = Interleave::NONE;

#[test]
fn levels_compose_to_the_devices_interleave() {
    for (root, bridge, switch, device) in [
        (FLAT, FLAT, FLAT, FLAT),
        // One-way levels take no part, whatever their granularity.
        (il(One, K16), il(One, K4), il(One, K1), FLAT),
        (FLAT, il(Two, K4), FLAT, il(Two, K4)),
        (il(Two, B256), il(One, K16), FLAT, il(Two, B256)),
        (il(Two, B256), il(Two, B512), FLAT, il(Four, B256)),
        (il(Four, B256), il(Four, K1), FLAT, il(Sixteen, B256)),
        (il(Three, B256), FLAT, FLAT, il(Three, B256)),
        (il(Three, K16), FLAT, FLAT, il(Three, K16)),
        (il(Sixteen, K2), FLAT, FLAT, il(Sixteen, K2)),
        // The root coarse, the bridge fine.
        (il(Two, B512), il(Two, B256), FLAT, il(Four, B256)),
        (il(Two, B256), il(Two, B512), il(Two, K1), il(Eight, B256)),
        (il(Two, K1), il(Two, B256), il(Two, B512), il(Eight, B256)),
        (FLAT, FLAT, il(Eight, K4), il(Eight, K4)),
        // Three at the root takes no selector bit and may divide above, at or below the others.
        (il(Three, B256), il(Two, B256), FLAT, il(Six, B256)),
        (il(Three, B512), il(Two, B256), FLAT, il(Six, B256)),
        (il(Three, B256), il(Two, K1), FLAT, il(Six, K1)),
        (il(Three, K1), il(Four, B256), FLAT, il(Twelve, B256)),
        (il(Six, B256), il(Two, B512), FLAT, il(Twelve, B256)),
        (il(Six, B512), il(Two, B256), FLAT, il(Twelve, B256)),
    ] {
        let levels = Levels { root, bridge, switch };
        assert_eq!(levels.device(), Ok(device), "{levels:?}");
    }
}

#[test]
fn levels_that_make_no_set_are_refused_by_name() {
    use ComposeError::*;
    for (root, bridge, switch, error, sentence) in [
        (
            FLAT,
            il(Three, B256),
            FLAT,
            PortWays { ways: Three },
            "a bridge or switch cannot interleave 3 ways (only 1, 2, 4, 8)",
        ),
        (
            FLAT,
            FLAT,
            il(Sixteen, B256),
            PortWays { ways: Sixteen },
            "a bridge or switch cannot interleave 16 ways (only 1, 2, 4, 8)",
        ),
        (
            il(Two, B256),
            il(Two, B256),
            FLAT,
            SharedBits { bits: 0x100 },
            "two levels select on the same HPA bits 0x100",
        ),
        (
            il(Four, B256),
            FLAT,
            il(Two, B512),
            SharedBits { bits: 0x200 },
            "two levels select on the same HPA bits 0x200",
        ),
        (
            il(Two, B256),
            il(Two, K1),
            FLAT,
            Hole { bits: 0x500 },
            "the levels select on HPA bits 0x500, which leave a hole",
        ),
        (
            il(Six, B256),
            il(Two, K1),
            FLAT,
            Hole { bits: 0x500 },
            "the levels select on HPA bits 0x500, which leave a hole",
        ),
        (
            il(Sixteen, B256),
            il(Two, K4),
            FLAT,
            NoSuchWays { product: 32 },
            "the levels make 32 ways, which no decoder can express",
        ),
        (
            il(Twelve, B256),
            il(Two, K1),
            FLAT,
            NoSuchWays { product: 24 },
            "the levels make 24 ways, which no decoder can express",
        ),
        (
            il(Two, K8),
            il(Four, K16),
            FLAT,
            NotDecodable(cxl_regs::NotDecodable(il(Eight, K8))),
            "8-way at 8 KiB needs HPA bit 15, decoders select on bits 8-14 only",
        ),
        (
            il(Three, K1),
            il(Two, B256),
            FLAT,
            ThreeTooCoarse { divides_from: 10, highest: 9 },
            "the root divides by three from HPA bit 10, the set's selectors end below bit 9",
        ),
    ] {
        let levels = Levels { root, bridge, switch };
        assert_eq!(levels.device(), Err(error), "{levels:?}");
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn linux_expects_parent_granularity_times_the_power_of_two_of_its_ways() {
    for (parent, child) in [
        (il(One, B256), Some(B256)),
        (il(Two, B256), Some(B512)),
        (il(Four, B256), Some(K1)),
        (il(Eight, K2), Some(K16)),
        (il(Sixteen, K1), Some(K16)),
        (il(Three, B256), Some(B256)),
        (il(Six, B256), Some(B512)),
        (il(Twelve, K4), Some(K16)),
        (il(Two, K8), Some(K16)),
        (il(Two, K16), None),
        (il(Sixteen, K2), None),
        (il(Twelve, K8), None),
    ] {
        assert_eq!(Levels::child_granularity(parent), child, "{parent}");
    }
}

// --- Words ---------------------------------------------------------------------------------------

#[test]
fn values_read_as_people_write_them() {
    let span = Span::new(Hpa(0x1_0000_0000), 0x3000_0000).unwrap();
    for (value, text) in [
        (Hpa(0x1_0000_0000).to_string(), "0x100000000"),
        (Dpa(0x800).to_string(), "0x800"),
        (span.to_string(), "0x100000000-0x12fffffff"),
        (SpanError::Empty { base: 0x10 }.to_string(), "the range at 0x10 has size 0"),
        (
            SpanError::Wraps { base: u64::MAX, size: 1 }.to_string(),
            "base 0xffffffffffffffff + size 0x1 passes the end of the 64-bit space",
        ),
        (Size(0).to_string(), "0 B"),
        (Size(768).to_string(), "768 B"),
        (Size(1023).to_string(), "1023 B"),
        (Size(1024).to_string(), "1 KiB"),
        (Size(1536 << 10).to_string(), "1536 KiB"),
        (Size(256 << 20).to_string(), "256 MiB"),
        (Size(3 << 30).to_string(), "3 GiB"),
        (Size(1 << 40).to_string(), "1 TiB"),
        (Size(5 << 50).to_string(), "5 PiB"),
        (Size(1 << 63).to_string(), "8 EiB"),
        (Size(u64::MAX).to_string(), "18446744073709551615 B"),
        (Twelve.to_string(), "12"),
        (K16.to_string(), "16 KiB"),
        (B512.to_string(), "512 B"),
        (Interleave::NONE.to_string(), "1-way"),
        (il(Six, K2).to_string(), "6-way at 2 KiB"),
        (Arithmetic::Modulo.to_string(), "modulo"),
        (Arithmetic::Xor.to_string(), "XOR"),
        (
            ReservedArithmetic(2).to_string(),
            "interleave arithmetic code 0x2 is reserved (defined: 0, 1)",
        ),
        (Component::Device.to_string(), "device"),
        (Component::HostBridge.to_string(), "host bridge"),
        (Component::UpstreamPort.to_string(), "upstream port"),
        (Coherency::HostOnly.to_string(), "host-only coherent (HDM-H)"),
    ] {
        assert_eq!(value, text);
    }
}
