//! Machines that the library has set up and something spoilt: what the proof of a mapping says, and
//! where the machine itself leads.
//!
//! **Invariant**: the proof and the walk through the models share no arithmetic.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use cxl_model::machine::Machine;
use cxl_model::mapping::{Reach, mappings};
use cxl_model::scenario::{Place, builtins};
use cxl_regs::Hpa;
use cxl_regs::mmio::Mmio;
use proptest::prelude::*;
use rig::{GLOBAL, component, decoder, dvsec, scenario};

/// What may go wrong with a machine that a firmware has set up.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    /// Bits of a decoder's dword.
    Decoder { place: usize, decoder: usize, dword: usize, bits: u32 },
    /// Type and BI, as software may choose them.
    Kind { place: usize, decoder: usize, bits: u32 },
    /// HDM Decoder Enable.
    Enable { place: usize },
    /// Mem_Enable.
    Memory { device: usize },
    /// A device is pulled out.
    Pull { device: usize },
}

fn any_spoil() -> impl Strategy<Value = Spoil> {
    let bits = prop_oneof![(0u32..32).prop_map(|bit| 1 << bit), (28u32..32).prop_map(|b| 1 << b)];
    let low = (0u32..14).prop_map(|bit| 1u32 << bit);
    prop_oneof![
        4 => (0usize..40, 0usize..3, 0usize..7, bits)
            .prop_map(|(place, decoder, dword, bits)| Spoil::Decoder { place, decoder, dword, bits }),
        4 => (0usize..40, 0usize..3, low)
            .prop_map(|(place, decoder, bits)| Spoil::Decoder { place, decoder, dword: 4, bits }),
        4 => (0usize..40, 0usize..3, 1u32..4)
            .prop_map(|(place, decoder, kind)| Spoil::Kind { place, decoder, bits: kind << 12 }),
        1 => (0usize..40).prop_map(|place| Spoil::Enable { place }),
        1 => (0usize..4).prop_map(|device| Spoil::Memory { device }),
        1 => (0usize..4).prop_map(|device| Spoil::Pull { device }),
    ]
}

/// A built-in machine without faults that the library has set up without a lock, on which every commit
/// succeeds at once.
fn set_up(which: usize) -> Machine {
    // Besides: two sets over the same devices, so that the upper one lies behind shares of the lower.
    let sets = "bridge = [{ uid = 16 }, { uid = 32 }]\n\
         port = [{ below = \"hb0\" }, { below = \"hb1\" }]\n\
         device = [{ below = \"port0\", volatile = \"256MiB\", persistent = \"256MiB\" },\n\
         { below = \"port1\", volatile = \"256MiB\", persistent = \"256MiB\" }]\n\
         window = [{ targets = [16, 32], size = \"2GiB\" }]\n[policy]\ninterleave = \"widest\"\n";
    let texts = builtins().iter().map(|found| found.text).chain([sets]);
    let mut scenario = scenario(texts.cycle().nth(which).unwrap());
    scenario.faults.clear();
    scenario.platform.strict = false;
    scenario.policy.path = cxl_model::scenario::PathPolicy::Unlocked;
    let mut machine = Machine::new(&scenario);
    cxl_harness::run::direct(&mut machine);
    machine
}

fn flip(machine: &mut Machine, address: u64, bits: u32) {
    let now = machine.read(address);
    machine.write(address, now ^ bits);
}

fn spoil(machine: &mut Machine, spoil: Spoil) {
    let places = machine.places();
    // The name of a component that is there and has decoders.
    let there = |machine: &Machine, place: usize| {
        let place = places[place % places.len()];
        let present = !matches!(place, Place::Device(device) if !machine.present(device));
        let found = machine.component(place).is_some_and(|block| block.hdm().is_some());
        (present && found).then(|| machine.name(place).to_owned())
    };
    let at = match spoil {
        Spoil::Decoder { place, decoder: index, dword, bits } => there(machine, place)
            .map(|name| (decoder(machine, &name, index as u64) + 4 * dword as u64, bits)),
        Spoil::Kind { place, decoder: index, bits } => {
            there(machine, place).map(|name| (decoder(machine, &name, index as u64) + 0x10, bits))
        }
        Spoil::Enable { place } => {
            there(machine, place).map(|name| (component(machine, &name) + GLOBAL, 2))
        }
        Spoil::Memory { device } if machine.present(device) => {
            let name = machine.name(Place::Device(device)).to_owned();
            Some((dvsec(machine, &name) + 0x0C, 4))
        }
        Spoil::Pull { device } if machine.present(device) => {
            machine.hot_remove(device).unwrap();
            None
        }
        Spoil::Memory { .. } | Spoil::Pull { .. } => None,
    };
    if let Some((address, bits)) = at {
        flip(machine, address, bits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The proof and the walk through the models share no arithmetic: what the one calls direct, the
    /// other decodes to the same byte, granule by granule at the borders and anywhere between; and
    /// on the way there every decoder is of one type.
    #[test]
    fn mapping_and_walk_agree_on_whatever_the_registers_hold(
        which in 0usize..64,
        spoils in prop::collection::vec(any_spoil(), 0..4),
        picks in prop::collection::vec(any::<u64>(), 8),
    ) {
        let mut machine = set_up(which);
        for wrong in spoils {
            spoil(&mut machine, wrong);
        }
        let fabric = machine.fabric();
        let list = mappings(&fabric);
        let mut bytes = std::collections::BTreeMap::new();
        for mapping in &list {
            let Some(span) = mapping.span() else { continue };
            let granules = (0..32).map(|n| n * 256).chain((1..32).map(|n| span.size() - n * 256));
            let picked = picks.iter().map(|pick| pick % span.size());
            for offset in granules.filter(|offset| *offset < span.size()).chain(picked) {
                let hpa = span.base().0 + offset;
                let landing = machine.resolve(hpa).map(|landing| (landing.device, landing.dpa));
                if let Reach::Direct(direct) = &mapping.how {
                    let located = direct.locate(Hpa(hpa)).map(|(member, dpa)| (member.device, dpa));
                    prop_assert_eq!(landing, located, "{:#x} of {:?}", hpa, mapping);
                    let other = bytes.insert(located, hpa).filter(|other| *other != hpa);
                    prop_assert_eq!(other, None, "a second address, {:#x}", hpa);
                }
                // What only decodes, one access at a time, decodes to the same byte too.
                if let Ok(path) = cxl_model::mapping::resolve(&fabric, Hpa(hpa)) {
                    prop_assert_eq!(landing, Some((path.endpoint.device, path.dpa)), "{:#x}", hpa);
                }
            }
        }
    }
}

#[test]
fn the_library_makes_no_undefined_use_of_a_register() {
    for found in builtins() {
        let mut machine = Machine::new(&scenario(found.text));
        cxl_harness::run::direct(&mut machine);
        // A commit that never ends is withdrawn: the one thing that is left to do.
        let expected = u64::from(found.name == "commit-never");
        let counts = machine.misuse();
        let withdrawn: u64 = counts.iter().map(|(_, misuse)| misuse.written_during_commit).sum();
        let changed: u64 = counts.iter().map(|(_, misuse)| misuse.changed_while_committed).sum();
        assert_eq!((withdrawn, changed), (expected, 0), "{}: {counts:?}", found.name);
    }
}
