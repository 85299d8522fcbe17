//! Laws that hold for every value: inverse pairs, bijections, and no panic on any input.
//!
//! **Invariant**: a law that only speaks of legal values has a strategy that makes legal values,
//! so that none passes by never meeting one.

mod cases;

use cases::cases;
use cxl_regs::hdm::{Capability, DecoderImage};
use cxl_regs::{
    Coherency, Component, Decoder, Dpa, Granularity, Hpa, Interleave, Route, Selector, Span,
    SpanError, Targets, Ways,
};
use proptest::prelude::*;

const UNIT: u64 = 256 << 20;

fn interleave() -> impl Strategy<Value = Interleave> {
    (prop::sample::select(&Ways::ALL[..]), prop::sample::select(&Granularity::ALL[..]))
        .prop_map(|(ways, granularity)| Interleave::new(ways, granularity))
}

/// The pairs with their selector bits in HPA 14:8; ports: 1, 2, 4 and 8 ways only.
fn decodable(component: Component) -> impl Strategy<Value = Interleave> {
    interleave().prop_filter("selector bits in 14:8", move |set| {
        let top = set.granularity.encode() + set.ways.encode() % 8;
        top <= 7 && (component == Component::Device || set.ways.encode() <= 3)
    })
}

fn coherency() -> impl Strategy<Value = Coherency> {
    prop::sample::select(&[Coherency::HostOnly, Coherency::Device, Coherency::BackInvalidate][..])
}

/// A base and a size in units of 256 MiB, the size a multiple of `ways` of them, below 2^64.
fn region(ways: u64) -> impl Strategy<Value = Span> {
    const UNITS: u64 = (1 << 36) - 1;
    (1..=UNITS / ways)
        .prop_flat_map(move |n| (0..=UNITS - n * ways, Just(n * ways)))
        .prop_map(|(base, size)| Span::new(Hpa(base * UNIT), size * UNIT).expect("below 2^64"))
}

/// Everything that a device may say. The capability has every feature.
fn device() -> impl Strategy<Value = (Component, Capability, Decoder)> {
    decodable(Component::Device)
        .prop_flat_map(|set| {
            let ways = u64::from(set.ways.count());
            (Just(set), region(ways), coherency(), any::<bool>(), 0u8..16, 0u64..1 << 36)
        })
        .prop_map(|(interleave, span, coherency, uio, set_position, skip)| {
            let decoder = Decoder {
                span,
                interleave,
                coherency,
                uio: uio.then_some(Interleave::NONE),
                set_position,
                route: Route::Skip(skip * UNIT),
            };
            (Component::Device, Capability::from_bits(0x0070_3F15), decoder)
        })
}

/// Everything that a host bridge or upstream port may say.
fn port() -> impl Strategy<Value = (Component, Capability, Decoder)> {
    let component = prop::sample::select(&[Component::HostBridge, Component::UpstreamPort][..]);
    let ports = Just((0..=255).collect::<Vec<u8>>()).prop_shuffle();
    let set = decodable(Component::HostBridge);
    let uio = prop::option::of(interleave());
    (component, set, region(1), coherency(), uio, 0u8..16, ports).prop_map(
        |(component, interleave, span, coherency, uio, set_position, ports)| {
            let route = Route::Targets(Targets::new(&ports[..8]).expect("eight ports"));
            let decoder = Decoder { span, interleave, coherency, uio, set_position, route };
            (component, Capability::from_bits(0x0000_2785), decoder)
        },
    )
}

fn legal() -> impl Strategy<Value = (Component, Capability, Decoder)> {
    prop_oneof![device(), port()]
}

/// Any bits at all, and legal registers with a few bits turned.
fn dwords() -> impl Strategy<Value = (Component, Capability, [u32; 8])> {
    let component = prop::sample::select(&Component::ALL[..]);
    let any = (component, any::<u32>().prop_map(Capability::from_bits), any::<[u32; 8]>());
    let turned = (legal(), prop::collection::vec((0usize..8, 0u32..32), 0..3)).prop_map(
        |((component, capability, decoder), turns)| {
            let image = decoder.encode(component, capability).expect("a legal decoder");
            let mut dwords = image.to_dwords();
            for (dword, bit) in turns {
                dwords[dword] ^= 1 << bit;
            }
            (component, capability, dwords)
        },
    );
    prop_oneof![1 => any, 4 => turned]
}

/// Any typed value, legal or not.
fn typed() -> impl Strategy<Value = Decoder> {
    let span = (any::<u64>(), any::<u64>(), any::<bool>())
        .prop_map(|(base, size, round)| match round {
            true => (base / UNIT * UNIT, size / UNIT * UNIT),
            false => (base, size),
        })
        .prop_filter_map("a span", |(base, size)| Span::new(Hpa(base), size).ok());
    let route = prop_oneof![
        any::<u64>().prop_map(Route::Skip),
        any::<[u8; 8]>().prop_map(|ports| Route::Targets(Targets(ports))),
    ];
    let uio = prop::option::of(interleave());
    (span, interleave(), coherency(), uio, any::<u8>(), route).prop_map(
        |(span, interleave, coherency, uio, set_position, route)| Decoder {
            span,
            interleave,
            coherency,
            uio,
            set_position,
            route,
        },
    )
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn a_legal_decoder_survives_its_registers((component, capability, decoder) in legal()) {
        let image = decoder.encode(component, capability).unwrap();
        prop_assert_eq!(Decoder::decode(&image, component, capability), Ok(decoder));
        // What is written never carries state: lock, commit, committed, error.
        prop_assert_eq!(image.control & 0x0F00, 0);
        prop_assert_eq!(image.reserved, 0);
    }

    #[test]
    fn registers_that_decode_are_written_back((component, capability, dwords) in dwords()) {
        let image = DecoderImage::from_dwords(dwords);
        prop_assert_eq!(image.to_dwords(), dwords);
        if let Ok(decoder) = Decoder::decode(&image, component, capability) {
            // Not meaning: state bits, UIG and UIW of a port without UIO, the reserved dword.
            let idle = component != Component::Device && dwords[4] & 0x4000 == 0;
            let mut expected = dwords;
            expected[4] &= if idle { !0x00FF_0F00 } else { !0x0000_0F00 };
            expected[7] = 0;
            let written = decoder.encode(component, capability).unwrap();
            prop_assert_eq!(written.to_dwords(), expected);
        }
    }

    #[test]
    fn what_encodes_decodes_to_itself(
        decoder in typed(),
        component in prop::sample::select(&Component::ALL[..]),
        capability in any::<u32>().prop_map(Capability::from_bits),
    ) {
        if let Ok(image) = decoder.encode(component, capability) {
            prop_assert_eq!(Decoder::decode(&image, component, capability), Ok(decoder));
        }
    }

    #[test]
    fn state_bits_never_change_the_meaning(
        (component, capability, decoder) in legal(),
        state in 0u32..16,
    ) {
        let mut image = decoder.encode(component, capability).unwrap();
        image.control |= state << 8;
        prop_assert_eq!(Decoder::decode(&image, component, capability), Ok(decoder));
    }

    #[test]
    fn offsets_and_members_are_one_to_one(
        set in interleave(), offset in any::<u64>(), member in 0u32..16, dpa in any::<u64>(),
    ) {
        let (position, there) = (set.position(offset), set.dpa_offset(offset));
        prop_assert!(position < set.ways.count());
        prop_assert_eq!(set.hpa_offset(position, there), Some(offset));
        match set.hpa_offset(member, dpa) {
            Some(offset) => {
                prop_assert_eq!((set.position(offset), set.dpa_offset(offset)), (member, dpa));
            }
            // Only for want of such a member or of room.
            None => prop_assert!(
                member >= set.ways.count()
                    || u128::from(dpa) * u128::from(set.ways.count()) + u128::from(set.stripe())
                        > u128::from(u64::MAX)
            ),
        }
    }

    #[test]
    fn addresses_and_members_of_a_window_are_one_to_one(
        set in interleave(),
        noise in prop::option::of(any::<[u64; 4]>()),
        base in (0u64..1 << 36).prop_map(|units| units * UNIT),
        offset in 0u64..1 << 60,
        member in 0u32..16,
    ) {
        let selector = match noise {
            None => Selector::modulo(set),
            Some(noise) => {
                let own = set.granularity.shift();
                let map = |i: usize| noise[i] << (own + 1) << i | 1 << own << i;
                Selector::xor(set, &[map(0), map(1), map(2), map(3)]).unwrap()
            }
        };
        if let Some(hpa) = base.checked_add(offset) {
            let (position, dpa) = (selector.position(Hpa(hpa)), set.dpa_offset(offset));
            prop_assert!(position < set.ways.count());
            prop_assert_eq!(selector.hpa(Hpa(base), position, dpa), Some(Hpa(hpa)));
        }
        let dpa = offset / 16;
        if let Some(Hpa(hpa)) = selector.hpa(Hpa(base), member, dpa) {
            prop_assert_eq!(selector.position(Hpa(hpa)), member);
            prop_assert_eq!(set.dpa_offset(hpa - base), dpa);
        }
    }

    #[test]
    fn any_list_of_maps_is_taken_or_refused(set in interleave(), maps in any::<Vec<u64>>()) {
        let need = set.ways.selector_bits() as usize;
        let good = maps.len() >= need
            && (0..need).all(|i| maps[i].trailing_zeros() == set.granularity.shift() + i as u32);
        prop_assert_eq!(Selector::xor(set, &maps).is_ok(), good);
    }

    #[test]
    fn a_span_is_neither_empty_nor_wrapped(base in any::<u64>(), size in any::<u64>()) {
        for size in [size, size >> 20, 0, 1, u64::MAX - base, (u64::MAX - base).saturating_add(1)] {
            let end = u128::from(base) + u128::from(size);
            let expected = if size == 0 {
                Err(SpanError::Empty { base })
            } else if end > u128::from(u64::MAX) {
                Err(SpanError::Wraps { base, size })
            } else {
                Ok((Dpa(base), size, Dpa(end as u64), Dpa(end as u64 - 1)))
            };
            let span = Span::new(Dpa(base), size);
            prop_assert_eq!(span.map(|s| (s.base(), s.size(), s.end(), s.last())), expected);
        }
    }
}

/// Exhaustive on small numbers, moved to both ends of the address space.
#[test]
fn spans_compare_as_the_sets_of_their_addresses() {
    for bottom in [0, u64::MAX - 8] {
        let spans = || {
            (0..8).flat_map(move |base| {
                (1..=8 - base).map(move |size| Span::new(Hpa(bottom + base), size).unwrap())
            })
        };
        let inside = |span: Span, at: u64| span.base().0 <= at && at - span.base().0 < span.size();
        let all = || (bottom..bottom + 8).chain([0, u64::MAX]);
        for one in spans() {
            for at in all() {
                assert_eq!(one.contains(Hpa(at)), inside(one, at), "{one} {at:#x}");
                let offset = inside(one, at).then(|| at - one.base().0);
                assert_eq!(one.offset_of(Hpa(at)), offset, "{one} {at:#x}");
            }
            for other in spans() {
                let both = all().any(|at| inside(one, at) && inside(other, at));
                let whole = all().all(|at| !inside(other, at) || inside(one, at));
                assert_eq!(one.overlaps(other), both, "{one} {other}");
                assert_eq!(one.contains_span(other), whole, "{one} {other}");
            }
        }
    }
}
