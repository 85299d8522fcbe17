//! Devices of hardware that are handed to a guest: what the guest has at its addresses is what hardware
//! has at its own, and nothing that it does or reads gets any further.
//!
//! **Invariant**: hardware is a machine of its own, which the library brought up as a host's firmware
//! would; where addresses lead is asked of both machines, and of nothing that made the shadow.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cxl_harness::attack;
use cxl_harness::report::{Report, Verdict};
use cxl_harness::run::{self, DirectRun};
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_model::mapping::{Reach, mappings};
use cxl_model::scenario::{BridgeVersion, InterleavePolicy, PathPolicy, Place, Scenario, builtins};
use cxl_regs::acpi::Cedt;
use cxl_regs::hdm::DecoderImage;
use cxl_regs::{Hpa, Span};

/// Where hardware has the window at an address of the guest's: far above, and in another order.
const HOST: u64 = 1 << 45;

fn passed(mut scenario: Scenario) -> Scenario {
    let placed = cxl_model::layout::place_windows(&scenario);
    let mut next = HOST;
    for (window, base) in scenario.windows.iter_mut().zip(placed).rev() {
        window.base = base;
        window.host = Some(Hpa(next));
        next += window.size.next_multiple_of(1 << 36);
    }
    scenario.policy.path = PathPolicy::LockAll;
    scenario.policy.interleave = InterleavePolicy::Flat;
    scenario
}

fn run(scenario: &Scenario) -> (Machine, DirectRun) {
    let mut machine = Machine::new(scenario);
    let done = run::direct(&mut machine);
    (machine, done)
}

fn own() -> Scenario {
    Scenario::built_in("passed-through").unwrap()
}

fn decoders(machine: &Machine, place: Place) -> Vec<DecoderImage> {
    machine.component(place).unwrap().hdm().map_or_else(Vec::new, |hdm| hdm.images().collect())
}

/// Every dword of decoders, DVSEC ranges and table that a guest can read, as base addresses.
fn shown(machine: &Machine, cedt: &[u8]) -> Vec<u64> {
    let mut all: Vec<u64> =
        Cedt::read(cedt).unwrap().windows().map(|w| w.span().base().0).collect();
    for place in machine.places() {
        if let Some(hdm) = machine.component(place).and_then(|block| block.hdm()) {
            all.extend(hdm.images().map(|image| image.raw_base()));
        }
        let Some(function) = machine.function(place) else { continue };
        let Some(at) = function.device_dvsec() else { continue };
        for base in [0x20, 0x30] {
            let [high, low] = [0, 4].map(|dword| u64::from(function.read(at + base + dword)));
            all.push(high << 32 | low);
        }
    }
    all
}

#[test]
fn a_guest_has_what_hardware_has_and_sees_no_address_of_its() {
    let mut handed_over = 0;
    for found in builtins() {
        let scenario = Scenario::built_in(found.name).unwrap();
        let restricted =
            scenario.bridges.iter().any(|bridge| bridge.version == BridgeVersion::Cxl1);
        let placed = cxl_model::layout::place_windows(&scenario);
        let unplaced = placed.iter().any(|base| base.is_none());
        if !scenario.faults.is_empty() || restricted || unplaced || scenario.windows.is_empty() {
            continue;
        }
        let already = scenario.windows.iter().any(|window| window.host.is_some());
        let scenario = if already { scenario } else { passed(scenario) };
        let name = &scenario.name;
        let (machine, done) = run(&scenario);
        if let Some(refusal) = done.refusal {
            // What the library refuses of hardware, in a machine where it never comes to a guest.
            let order =
                refusal.to_string().contains("mem0 cannot be handed over: decoder 1 cannot begin");
            assert!(
                refusal.code() >> 8 == 3 || order && name == "window-order",
                "{name}: {refusal}"
            );
            continue;
        }
        assert_eq!(done.passed_wrong, [""; 0], "{name}");
        handed_over += 1;
        let hardware = &machine.hardware().unwrap().machine;
        let direct = |machine: &Machine| -> Vec<(Span, usize, u64)> {
            let all = mappings(&machine.fabric()).into_iter();
            let direct = all.filter_map(|mapping| match &mapping.how {
                Reach::Direct(direct) => {
                    let (member, dpa) = direct.locate(mapping.hpa).unwrap();
                    Some((mapping.span().unwrap(), member.device, dpa.0))
                }
                Reach::Trapped { .. } => None,
            });
            direct.collect()
        };
        let (ours, theirs) = (direct(&machine), direct(hardware));
        assert!(!ours.is_empty() && ours.len() == theirs.len(), "{name}");
        // Every range by the same device's addresses, in both machines.
        for (span, device, dpa) in &ours {
            let same = |(other, at, start): &&(Span, usize, u64)| {
                (*at, *start, other.size()) == (*device, *dpa, span.size())
            };
            let host = theirs.iter().find(same).unwrap_or_else(|| panic!("{name}: {span:?}"));
            assert!(host.0.base().0 >= HOST || already, "{name}");
            assert!(!host.0.overlaps(*span), "{name}");
        }
        let hosts: Vec<Span> = theirs.iter().map(|(span, ..)| *span).collect();
        let shown = shown(&machine, &done.cedt);
        let of_host =
            shown.iter().filter(|base| hosts.iter().any(|host| host.contains(Hpa(**base))));
        assert_eq!(of_host.count(), 0, "{name}: {shown:x?}");
        // The guest's own firmware had nothing to write.
        for (place, count) in &machine.traffic().decoders {
            assert_eq!(count.all().writes, 0, "{name}: {place:?}");
        }
    }
    assert!(handed_over > 12, "{handed_over} machines");
}

#[test]
fn whatever_the_guest_resets_comes_back_and_hardware_stays() {
    let (mut machine, done) = run(&own());
    assert_eq!(done.refusal, None);
    let fabric = machine.fabric();
    for reset in Reset::ALL {
        machine.reset(reset);
        assert_eq!(machine.fabric(), fabric, "{reset:?}");
        for device in 0..3 {
            machine.reset_device(device, reset);
            assert_eq!(machine.fabric(), fabric, "{reset:?} of {device}");
        }
        assert_eq!(machine.passed_wrong(), [""; 0], "{reset:?}");
        // The board gives BARs and buses out again.
        machine.assign();
        let again = run::direct(&mut machine);
        assert_eq!((again.refusal, again.passed_wrong), (None, vec![]), "{reset:?}");
    }
}

#[test]
fn the_attack_finds_nothing_to_move() {
    let (mut machine, done) = run(&own());
    let report = attack::direct(&mut machine, &done);
    assert!(report.integrity.holds, "{:?}", report.integrity.breaches);
    assert_eq!((report.changed, report.integrity.ranges), (0, 4));
    // No spare decoder takes a commit: nothing can be added either.
    let open: Vec<_> = report.availability.iter().map(|way| way.register.as_str()).collect();
    assert!(!open.contains(&"spare decoders") && open.len() > 3, "{open:?}");
    assert_eq!(machine.passed_wrong(), [""; 0]);
    for place in machine.places() {
        let used = decoders(&machine, place).iter().filter(|i| i.control().committed()).count();
        let before = machine.hardware().unwrap().machine.component(place);
        let before = before
            .and_then(|block| block.hdm())
            .map_or(0, |hdm| hdm.images().filter(|image| image.control().committed()).count());
        assert_eq!(used, before, "{place:?}");
    }
}

/// A machine with something done to it that a sound one would not show.
type Leak = (&'static str, fn(&mut Machine));

/// Shadows that leak, each in its own way, and what is said of them.
#[test]
fn a_shadow_that_leaks_is_found() {
    const DECODER: u16 = 0x10;
    let leaks: [Leak; 6] = [
        ("a DVSEC range of mem1 shows the host's address 0x800", |machine| {
            let function = machine.function_mut(Place::Device(1)).unwrap();
            let at = function.device_dvsec().unwrap();
            function.registers_mut().put(at + 0x20, 0x800);
        }),
        ("mem1 decoder 0 shows the host's address 0x800", |machine| {
            let hdm = machine.endpoint_mut(1).unwrap().component.hdm_mut().unwrap();
            hdm.overwrite(DECODER + 4, 0x800, !0, true);
        }),
        // A write that came through.
        ("registers of hardware have changed", |machine| {
            let hardware = &mut machine.hardware_mut().unwrap().machine;
            let hdm = hardware.endpoint_mut(0).unwrap().component.hdm_mut().unwrap();
            hdm.overwrite(DECODER + 8, 0x2000_0000, !0, true);
        }),
        ("registers of hardware have changed", |machine| {
            let hardware = &mut machine.hardware_mut().unwrap().machine;
            hardware.reset(Reset::Hot);
        }),
        // A shadow that leads to another part of the device than hardware does.
        ("is not what hardware has at", |machine| {
            let hdm = machine.endpoint_mut(0).unwrap().component.hdm_mut().unwrap();
            hdm.overwrite(DECODER + 0x20 + 0x14, 0x1000_0000, !0, true);
            hdm.overwrite(DECODER + 0x14, 0x1000_0000, !0, true);
        }),
        ("is not what hardware has at", |machine| {
            let hardware = &mut machine.hardware_mut().unwrap().machine;
            let hdm = hardware.endpoint_mut(1).unwrap().component.hdm_mut().unwrap();
            hdm.overwrite(DECODER, 0x3000_0000, 0xF000_0000, false);
        }),
    ];
    for (says, leak) in leaks {
        let (mut machine, mut done) = run(&own());
        leak(&mut machine);
        done.passed_wrong = machine.passed_wrong();
        assert!(done.passed_wrong.iter().any(|word| word.contains(says)), "{says}: {done:?}");
        let report = Report::of_direct(&machine, &done);
        assert_eq!(report.facts.result, Verdict::Failed, "{says}");
    }
    // A lock of the shadow's that holds nothing is what the attack is for.
    let mut leaking = own();
    let text = "fault = [{ at = \"mem0\", kind = \"lock-not-enforced\" }]\n";
    let text =
        format!("{text}{}", builtins().iter().find(|b| b.name == "passed-through").unwrap().text);
    leaking.faults = Scenario::parse(&text, "leaking").unwrap().faults;
    let (mut machine, done) = run(&leaking);
    let report = attack::direct(&mut machine, &done);
    assert!(!report.integrity.holds && report.changed > 0);
}

#[test]
fn what_cannot_be_handed_over_never_starts_a_guest() {
    let refused = |change: fn(&mut Scenario)| {
        let mut scenario = own();
        change(&mut scenario);
        let (machine, done) = run(&scenario);
        assert!(machine.hardware().is_none());
        done.refusal.unwrap().to_string()
    };
    let words = refused(|scenario| scenario.policy.path = PathPolicy::Unlocked);
    assert!(
        words.contains("hb0 cannot be handed over: decoder 0 is in use and not locked"),
        "{words}"
    );
    let words = refused(|scenario| scenario.policy.path = PathPolicy::Describe);
    assert!(words.contains("no decoder of hardware is in use"), "{words}");
    // A place for hardware's memory that hardware does not have.
    let words = refused(|scenario| scenario.windows[0].host = Some(Hpa(1 << 53)));
    assert!(words.starts_with("plan: window 0x20000000000000"), "{words}");
    let two = Scenario::built_in("two-way").unwrap();
    let mut two = Scenario { policy: two.policy, ..passed(two) };
    two.policy.path = PathPolicy::LockAll;
    let (_, done) = run(&two);
    let words = done.refusal.unwrap().to_string();
    assert!(words.contains("is one of a set of 2"), "{words}");
}
