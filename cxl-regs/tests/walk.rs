//! The brute-force walk: granules are dealt out like cards, and the crate has to find each again.
//!
//! **Invariant**: the dealer uses none of the crate's arithmetic. It has hands (a `Vec` a member),
//! counters, plain division, and the list of ways and granularities as bare numbers.

mod cases;

use cases::cases;
use cxl_regs::{ComposeError, Granularity, Hpa, Interleave, Levels, Selector, Ways};
use proptest::prelude::*;

const MIB256: u64 = 0x1000_0000;

/// Ways as (type, count, power-of-two factor).
const WAYS: [(Ways, u64, u64); 8] = [
    (Ways::One, 1, 1),
    (Ways::Two, 2, 2),
    (Ways::Four, 4, 4),
    (Ways::Eight, 8, 8),
    (Ways::Sixteen, 16, 16),
    (Ways::Three, 3, 1),
    (Ways::Six, 6, 2),
    (Ways::Twelve, 12, 4),
];

/// Granularities as (type, bytes).
const GRANULES: [(Granularity, u64); 7] = [
    (Granularity::B256, 256),
    (Granularity::B512, 512),
    (Granularity::K1, 1024),
    (Granularity::K2, 2048),
    (Granularity::K4, 4096),
    (Granularity::K8, 8192),
    (Granularity::K16, 16384),
];

fn parity(mut value: u64) -> u64 {
    let mut odd = 0;
    while value != 0 {
        odd = (odd + value % 2) % 2;
        value /= 2;
    }
    odd
}

/// Who gets the granule at `hpa`: with no maps in turn, else by the parity of the maps below and
/// in turn of three above (CFMWS and CXIMS, CXL r3.1 section 9.18.1.3 and 9.18.1.4).
fn seat(hpa: u64, (_, ways, power): (Ways, u64, u64), granule: u64, maps: &[u64]) -> u64 {
    if maps.is_empty() {
        return hpa / granule % ways;
    }
    let mut seat = hpa / granule / power % (ways / power) * power;
    let mut weight = 1;
    for map in maps {
        if weight < power {
            seat += weight * parity(hpa & map);
            weight *= 2;
        }
    }
    seat
}

/// Lists of XOR maps for a window whose selector bits start at the bit of `granule`.
fn map_sets(granule: u64) -> [Vec<u64>; 5] {
    let own = |i: u32| granule << i;
    let set = |map: &dyn Fn(u32) -> u64| (0..4).map(map).collect();
    [
        // The selector bits alone: modulo in disguise.
        set(&own),
        // Every map with one bit eight places up.
        set(&|i| own(i) | own(i) << 8),
        // High bits, and a different number in each.
        set(&|i| own(i) | 1 << 51 | 0b1011 << (28 + i) | 1 << 20),
        // Every map holds the next one's selector bit.
        set(&|i| own(i) | own(i) << 1),
        // All bits from its own to bit 51: everybody else's selector bits above it.
        set(&|i| (1 << 52) - own(i)),
    ]
}

fn check(set: Interleave, selector: &Selector, base: u64, hpa: u64, member: u64, dpa: u64) {
    let member = member as u32;
    assert_eq!(set.dpa_offset(hpa - base), dpa, "{set}, base {base:#x}: DPA of {hpa:#x}");
    assert_eq!(selector.position(Hpa(hpa)), member, "{set}, base {base:#x}: member of {hpa:#x}");
    assert_eq!(
        selector.hpa(Hpa(base), member, dpa),
        Some(Hpa(hpa)),
        "{set}, base {base:#x}: HPA of member {member}, DPA {dpa:#x}"
    );
}

#[test]
fn every_granule_is_found_in_the_hand_it_was_dealt_to() {
    // Multiples of every stripe, of 256 MiB only (in each third of a round), and near 2^52.
    let bases = [
        0,
        12 * MIB256,
        0x1_0000_0000,
        0x1_7000_0000,
        0x8_0000_0000_0000 + 5 * MIB256,
        0xF_FFFF_4000_0000,
    ];
    for ways in WAYS {
        for (granularity, granule) in GRANULES {
            let set = Interleave::new(ways.0, granularity);
            let mut windows = vec![(vec![], Selector::modulo(set))];
            windows.extend(map_sets(granule).map(|maps| {
                let selector = Selector::xor(set, &maps).unwrap();
                (maps, selector)
            }));
            for base in bases {
                for (maps, selector) in &windows {
                    let mut hands = vec![Vec::new(); ways.1 as usize];
                    for n in 0..ways.1 * 48 {
                        let hpa = base + n * granule;
                        hands[seat(hpa, ways, granule, maps) as usize].push(hpa);
                    }
                    for (member, hand) in (0..).zip(&hands) {
                        assert_eq!(hand.len(), 48, "{set}: an unfair deal is no interleave");
                        for (dpa, &hpa) in (0..).step_by(granule as usize).zip(hand) {
                            for within in [0, granule / 2 + 7, granule - 1] {
                                check(set, selector, base, hpa + within, member, dpa + within);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn offsets_are_dealt_in_turn_from_the_start_of_the_range() {
    for (ways, count, _) in WAYS {
        for (granularity, granule) in GRANULES {
            let set = Interleave::new(ways, granularity);
            let mut offset = 0;
            for round in 0..100 {
                for member in 0..count as u32 {
                    for within in [0, 1, granule - 1] {
                        let dpa = round * granule + within;
                        assert_eq!(set.position(offset + within), member, "{set}");
                        assert_eq!(set.dpa_offset(offset + within), dpa, "{set}");
                        assert_eq!(set.hpa_offset(member, dpa), Some(offset + within), "{set}");
                    }
                    offset += granule;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    /// The same far away from zero: 52-bit addresses, ranges of terabytes, any valid maps.
    #[test]
    fn large_ranges_are_dealt_the_same_way(
        ways in prop::sample::select(&WAYS[..]),
        (granularity, granule) in prop::sample::select(&GRANULES[..]),
        base in (0..1u64 << 23).prop_map(|n| n * MIB256),
        offset in 0..1u64 << 51,
        noise in prop::option::of(any::<[u64; 4]>()),
    ) {
        let set = Interleave::new(ways.0, granularity);
        // Any bits above its own, up to bit 51.
        let map = |i: usize, noise: u64| {
            let (own, next) = (granule << i, granule << (i + 1));
            noise % (1 << 52) / next * next + own
        };
        let maps: Vec<u64> =
            noise.iter().flatten().enumerate().map(|(i, &noise)| map(i, noise)).collect();
        let selector = match maps.is_empty() {
            true => Selector::modulo(set),
            false => Selector::xor(set, &maps).unwrap(),
        };
        let hpa = base + offset;
        let member = seat(hpa, ways, granule, &maps);
        let dpa = offset / (ways.1 * granule) * granule + offset % granule;
        check(set, &selector, base, hpa, member, dpa);
        // The member's next granule comes right behind, within two rounds.
        let mut behind = (1..2 * ways.1).map(|n| hpa + n * granule);
        let next = behind.find(|&next| seat(next, ways, granule, &maps) == member);
        let Some(next) = next else {
            return Err(TestCaseError::fail(format!("nothing for member {member} in two rounds")));
        };
        check(set, &selector, base, next, member, dpa + granule);
    }
}

// --- Levels --------------------------------------------------------------------------------------

/// One level as bare numbers: ways and bytes.
#[derive(Clone, Copy, Debug)]
struct Level {
    ways: (Ways, u64, u64),
    granule: (Granularity, u64),
}

impl Level {
    fn typed(self) -> Interleave {
        Interleave::new(self.ways.0, self.granule.0)
    }
}

/// Every level that a component with these ways can be programmed to; one way once, and coarse, as
/// its granularity must not matter.
fn levels_with(ways: &[(Ways, u64, u64)]) -> Vec<Level> {
    let mut levels = Vec::new();
    for &ways in ways {
        for granule in GRANULES {
            if ways.1 > 1 || granule.1 == 16384 {
                levels.push(Level { ways, granule });
            }
        }
    }
    levels
}

/// A root, a bridge and a switch, and what their walk needs.
#[derive(Clone, Copy, Debug)]
struct Path {
    root: Level,
    bridge: Level,
    switch: Level,
}

/// A multiple of every stripe that any three levels or any device can have: the highest selector
/// is bit 17, above it a round of three.
const REGION: u64 = 3 << 18;
const STEP: u64 = 256;

impl Path {
    fn typed(self) -> Levels {
        Levels { root: self.root.typed(), bridge: self.bridge.typed(), switch: self.switch.typed() }
    }

    fn members(self) -> u64 {
        self.root.ways.1 * self.bridge.ways.1 * self.switch.ways.1
    }

    /// Which device an address arrives at, all levels on absolute addresses: the root by its
    /// arithmetic, a bridge and a switch by their way, which is bits of the address.
    fn arrival(self, hpa: u64, maps: &[u64]) -> u64 {
        let root = seat(hpa, self.root.ways, self.root.granule.1, maps);
        let bridge = hpa / self.bridge.granule.1 % self.bridge.ways.1;
        let switch = hpa / self.switch.granule.1 % self.switch.ways.1;
        (root * self.bridge.ways.1 + bridge) * self.switch.ways.1 + switch
    }

    /// Whether every member gets at least one granule.
    fn reaches_everybody(self) -> bool {
        let mut reached = vec![false; self.members() as usize];
        let mut missing = reached.len();
        for hpa in (0..REGION).step_by(STEP as usize) {
            let member = &mut reached[self.arrival(hpa, &[]) as usize];
            if !*member {
                *member = true;
                missing -= 1;
                if missing == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Whether devices programmed to `ways` at `granule` get every address exactly once. The
    /// region has as many cells (member, DPA) as granules, so no collision means no hole.
    fn deals_fairly(self, ways: u64, granule: u64, base: u64, maps: &[u64]) -> bool {
        assert_eq!(ways, self.members(), "else shares do not add up to the region");
        let share = REGION / ways;
        let mut taken = vec![false; (REGION / STEP) as usize];
        for offset in (0..REGION).step_by(STEP as usize) {
            let member = self.arrival(base + offset, maps);
            let dpa = offset / (ways * granule) * granule + offset % granule;
            assert!(dpa < share);
            let cell = &mut taken[((member * share + dpa) / STEP) as usize];
            if *cell {
                return false;
            }
            *cell = true;
        }
        true
    }
}

fn every_path(mut visit: impl FnMut(Path)) {
    let ports = levels_with(&WAYS[..4]);
    for root in levels_with(&WAYS) {
        for &bridge in &ports {
            for &switch in &ports {
                visit(Path { root, bridge, switch });
            }
        }
    }
}

fn count(ways: Ways) -> u64 {
    WAYS.iter().find(|row| row.0 == ways).expect("all ways are listed").1
}

fn bytes(granularity: Granularity) -> u64 {
    GRANULES.iter().find(|row| row.0 == granularity).expect("all granularities are listed").1
}

/// The seven pairs whose selectors reach beyond HPA bit 14.
fn beyond_bit_14(ways: u64, granule: u64) -> bool {
    matches!(
        (ways, granule),
        (4, 16384) | (8, 8192 | 16384) | (16, 4096 | 8192 | 16384) | (12, 16384)
    )
}

#[test]
fn accepted_levels_give_every_member_each_address_once() {
    let (mut accepted, mut with_three) = (0, 0);
    every_path(|path| {
        let Ok(device) = path.typed().device() else { return };
        let (ways, granule) = (count(device.ways), bytes(device.granularity));
        assert!(!beyond_bit_14(ways, granule), "{path:?}: {device}");
        // A multiple of three stripes, and 256 MiB multiples that start in either other third.
        for base in [0, 0x1_6000_0000, 0x1_7000_0000] {
            assert!(path.deals_fairly(ways, granule, base, &[]), "{path:?}: {device}");
        }
        let granule_of_root = path.root.granule.1;
        for maps in map_sets(granule_of_root) {
            let fair = path.deals_fairly(ways, granule, 0x1_6000_0000, &maps);
            assert!(fair, "{path:?}: {device}, maps {maps:x?}");
        }
        accepted += 1;
        with_three += u32::from(ways % 3 == 0);
    });
    // So that an empty walk cannot pass.
    assert!(accepted > 400 && with_three > 150, "{accepted}, {with_three} with a factor of three");
}

#[test]
fn refused_levels_fit_no_device() {
    let [mut shared, mut hole, mut no_ways, mut coarse, mut beyond] = [0; 5];
    every_path(|path| {
        let Err(error) = path.typed().device() else { return };
        let members = path.members();
        // Two levels on one bit: some member never gets anything.
        if let ComposeError::SharedBits { .. } = error {
            shared += 1;
            assert!(!path.reaches_everybody(), "{path:?}: {error}");
            return;
        }
        assert!(path.reaches_everybody(), "{path:?}: {error}");
        let has_code = WAYS.iter().any(|row| row.1 == members);
        assert_eq!(matches!(error, ComposeError::NoSuchWays { .. }), !has_code, "{path:?}");
        if !has_code {
            no_ways += 1;
            return;
        }
        // No setting of the devices works, except one that no decoder has.
        for (granularity, granule) in GRANULES {
            if !path.deals_fairly(members, granule, 0, &[]) {
                continue;
            }
            let ComposeError::NotDecodable(pair) = error else {
                panic!("{path:?}: {members} ways at {granule} would do, but: {error}");
            };
            assert!(beyond_bit_14(members, granule), "{path:?}");
            assert_eq!((count(pair.0.ways), pair.0.granularity), (members, granularity));
        }
        match error {
            ComposeError::Hole { .. } => hole += 1,
            ComposeError::ThreeTooCoarse { .. } => coarse += 1,
            ComposeError::NotDecodable(_) => beyond += 1,
            _ => panic!("{path:?}: {error}"),
        }
    });
    // So that every reason was really met.
    for (met, name) in [
        (shared, "shared bits"),
        (hole, "hole"),
        (no_ways, "no such ways"),
        (coarse, "three too coarse"),
        (beyond, "not decodable"),
    ] {
        assert!(met > 10, "{name}: {met}");
    }
}
