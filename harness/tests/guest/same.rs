//! A direct run and a guest run of the same firmware leave the same machine.

use cxl_firmware::committed::{CommittedRegion, Place as At, Probed};
use cxl_firmware::handoff;
use cxl_harness::attack;
use cxl_harness::guest::Counted;
use cxl_harness::guest::boot::{GuestError, Verdict, boot};
use cxl_harness::mirror::Unmirrored;
use cxl_harness::report::{Facts, Report};
use cxl_harness::run::{self, Refusal};
use cxl_model::machine::Machine;
use cxl_model::mapping::mappings;
use cxl_model::scenario::{FaultKind, Place, Scenario, builtins};
use cxl_model::trace::{Direction, Target};
use cxl_regs::Component;
use cxl_regs::hdm::DecoderImage;
use libtest_mimic::Trial;

use crate::{builtin, claim, options, payload};

pub(crate) fn trials() -> Vec<Trial> {
    let names = builtins().iter().map(|builtin| builtin.name);
    let builtins = names.map(|name| {
        let timed = name == "commit-never";
        claim(format!("guest_and_direct_run_agree_on_{name}"), move || same(&builtin(name), timed))
    });
    let attacks = ["one-device", "type2", "two-partitions", "switch"].map(|name| {
        claim(format!("guest_and_direct_attack_agree_on_{name}"), move || {
            attacked(&builtin(name));
        })
    });
    let named = claim("guest_and_direct_attack_agree_in_modes_that_a_scenario_names", || {
        let text = cxl_model::scenario::builtin("one-device").unwrap().text.to_owned() + NAMED;
        let attack = attacked(&Scenario::parse(&text, "named").unwrap());
        let breaches = attack.integrity.breaches.join("\n");
        assert!(breaches.contains("while Max_Payload_Size of mem0 holds 0x3"), "{breaches}");
        assert_eq!(attack.not_tried, ["while Vendor and Device ID of mem0 holds 0x1"]);
    });
    let occupied = [
        ("ram", "0x10000000"),
        ("configuration_space", "0xC0000000"),
        ("bridge_registers", "0xE0000000"),
        ("interrupt_controllers", "0xF0000000"),
    ];
    let occupied = occupied.map(|(by, base)| {
        claim(format!("guest_and_direct_run_refuse_a_window_over_{by}"), move || {
            let text = OCCUPIED.replace("BASE", base);
            let scenario = Scenario::parse(&text, by).unwrap();
            let refusal = run::direct(&mut Machine::new(&scenario)).refusal.unwrap();
            assert_eq!(refusal.code(), 0x0330, "{refusal}");
            same(&scenario, false);
        })
    });
    let requests = claim("guest_and_direct_run_agree_on_explicit_requests", || {
        let scenario = Scenario::parse(REQUESTS, "requests").unwrap();
        same(&scenario, false);
        let ran = payload(&scenario, "touch").good();
        let slots = ran.run.mirror.slots.iter();
        let places: Vec<_> = slots.map(|slot| (slot.base, slot.size)).collect();
        assert_eq!(places, [(0x1_2000_0000, 0x1000_0000), (0x2_3000_0000, 0x2000_0000)]);
    });
    builtins.chain(attacks).chain(occupied).chain([requests, named]).collect()
}

/// A leak, the mode in which it is one, and a mode that there cannot be.
const NAMED: &str = r#"
[[leak]]
at = "mem0"
register = "base_high"
while = "Max_Payload_Size"
is = "on"
[[mode]]
at = "mem0"
register = "Device Control"
field = "Max_Payload_Size"
value = 3
[[mode]]
at = "mem0"
register = "Vendor and Device ID"
value = 1
"#;

/// The facts of both runs are one text: only what is measured differs.
fn attacked(scenario: &Scenario) -> attack::Report {
    let mut machine = Machine::new(scenario);
    let done = run::direct(&mut machine);
    let mut direct = Report::of_direct(&machine, &done);
    direct.facts.set_attack(attack::direct(&mut machine, &done));
    let guest = payload(scenario, "attack").good();
    let guest = Report::of_guest(&guest.machine, &guest.run);
    assert!(guest.facts.attack.as_ref().is_some_and(|attack| attack.tried > 1000));
    assert_eq!(guest.facts.to_string(), direct.facts.to_string());
    assert_eq!(json(&guest.facts), json(&direct.facts));
    guest.facts.attack.unwrap()
}

fn json(facts: &Facts) -> serde_json::Value {
    serde_json::to_value(facts).unwrap()
}

/// Regions in windows by name and by base, at offsets, below a switch, smaller than they could be.
const REQUESTS: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
number = 7
[[switch]]
name = "sw0"
below = "rp0"
[[port]]
name = "dp0"
below = "sw0"
number = 3
[[device]]
name = "mem0"
below = "dp0"
volatile = "512MiB"
persistent = "1GiB"
[[window]]
name = "near"
targets = ["hb0"]
base = "0x100000000"
size = "2GiB"
[[window]]
targets = ["hb0"]
base = "0x200000000"
size = "2GiB"
[[region]]
device = "mem0"
partition = "volatile"
window = "near"
offset = "512MiB"
size = "256MiB"
[[region]]
device = "mem0"
partition = "persistent"
window = "0x200000000"
offset = "768MiB"
size = "512MiB"
"#;

/// A window where something else answers.
const OCCUPIED: &str = r#"
bridge = [{ name = "hb0", uid = 1, bus = 0x10 }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", volatile = "256MiB" }]
window = [{ targets = ["hb0"], base = "BASE", size = "256MiB" }]
"#;

/// `timed`: how often the library polls depends on the clock.
fn same(scenario: &Scenario, timed: bool) {
    // Nothing happens to a direct run, and a guest that does not count is told what it missed.
    let scenario = &Scenario { events: Vec::new(), ..scenario.clone() };
    let mut machine = Machine::new(scenario);
    machine.recorder_mut().keep();
    let direct = run::direct(&mut machine);
    let trace = machine.recorder_mut().take();
    if let Some(Refusal::Scenario(error)) = &direct.refusal {
        let guest = boot(&mut Machine::new(scenario), &options());
        let Err(GuestError::Refused(refusal)) = guest else { panic!("{guest:?}") };
        assert_eq!(refusal, Refusal::Scenario(error.clone()));
        return;
    }
    let guest = payload(scenario, "none");
    assert_eq!(
        guest.run.last().code(),
        Some(direct.refusal.as_ref().map_or(0, |refusal| refusal.code()))
    );
    let verdict = if direct.refusal.is_some() { Verdict::Refused } else { Verdict::Good };
    assert_eq!(guest.run.last().verdict(), verdict, "{}", guest.console());
    assert_eq!(guest.machine.fabric(), machine.fabric());
    assert_eq!(guest.run.mirror.mappings, mappings(&machine.fabric()));
    assert_eq!(guest.run.last().cedt(), direct.cedt);

    // What the library counts is what it does directly, and what exited, but for registers that are there
    // and answer the same at any time: they are memory to it. It counts dwords.
    let counted = guest.run.first.handed.as_ref().unwrap().library;
    let exits = guest.run.first.handed.as_ref().unwrap().counts;
    let reads = exits.reads + exits.listed - exits.config;
    let exited = (reads, exits.writes + exits.paired, exits.window);
    assert_eq!(exited, (counted.reads - counted.config, counted.writes, 0));
    if !timed {
        let ecam = 0xC000_0000..0xE000_0000;
        let reads: Vec<_> = trace.iter().filter(|a| a.direction == Direction::Read).collect();
        let config: Vec<_> = reads.iter().filter(|a| ecam.contains(&a.address)).collect();
        let dies = |place| {
            let mut faults = scenario.faults.iter();
            faults.any(|f| f.at == place && matches!(f.kind, FaultKind::AllOnesAfter { .. }))
        };
        let trapped = config.iter().filter(|a| a.place.is_none_or(dies)).count() as u64;
        let counts = |place| {
            scenario.faults.iter().any(|fault| {
                use FaultKind::{CommitNever, CommitPolls, LockLost};
                let by_read =
                    matches!(fault.kind, CommitNever { .. } | CommitPolls { .. } | LockLost { .. });
                fault.at == place && by_read
            })
        };
        let listed = reads.iter().filter(|access| match access.target {
            Some(Target::Component { place, .. }) => {
                machine.component(place).is_some() && !dies(place) && !counts(place)
            }
            Some(Target::DeviceRegisters { device, .. }) => !dies(Place::Device(device)),
            _ => false,
        });
        assert_eq!(exits.listed, listed.count() as u64);
        let all = machine.traffic().all;
        let (reads, config) = (reads.len() as u64, config.len() as u64);
        let (memory_reads, memory_writes) = (counted.memory_reads, counted.memory_writes);
        let registers = Counted { reads, config, writes: all.writes, memory_reads, memory_writes };
        assert_eq!(counted, registers);
        assert_eq!(exits.config, trapped);
    }

    // The record is what the registers hold.
    let record = handoff::read(guest.run.last().record()).unwrap();
    for decoder in record.decoders() {
        let found = registers(&guest.machine, scenario, &decoder.place);
        assert_eq!(Some(decoder.image), found, "{}", decoder.place);
    }
    if direct.refusal.is_none() {
        let other = handoff::read(&direct.handoff).unwrap();
        assert!(record.decoders().eq(other.decoders()));
        let mirror = &guest.run.mirror;
        let mut far = mirror.unmirrored.iter().filter(|(_, why)| *why == Unmirrored::AddressWidth);
        let asked = |region: CommittedRegion| {
            let beyond = far.any(|(at, _)| mirror.mappings[*at].hpa == region.span.base());
            if beyond { CommittedRegion { probed: Probed::No, ..region } } else { region }
        };
        assert!(record.regions().eq(other.regions().map(asked)));
        let committed: usize = machine.places().into_iter().map(|at| committed(&machine, at)).sum();
        assert_eq!(record.decoders().count(), committed, "all of them");
        // Three places in each way: read, marked, read, put back, read; persistent ones read only.
        let probed = record.regions().fold((0, 0), |(reads, writes), region| {
            let places = 3 * u64::from(region.interleave.ways.count());
            match region.probed {
                Probed::Held => (reads + 3 * places, writes + 2 * places),
                Probed::Read => (reads + 3 * places, writes),
                // Out of this processor's reach.
                Probed::No => (reads, writes),
            }
        });
        assert_eq!((counted.memory_reads, counted.memory_writes), probed);
    }
    if !timed {
        let direct = Report::of_direct(&machine, &direct);
        let guest = Report::of_guest(&guest.machine, &guest.run);
        assert_eq!(guest.facts.to_string(), direct.facts.to_string());
        assert_eq!(json(&guest.facts), json(&direct.facts));
    }
}

fn committed(machine: &Machine, place: Place) -> usize {
    let hdm = machine.component(place).and_then(|component| component.hdm());
    hdm.map_or(0, |hdm| hdm.images().filter(|image| image.control().committed()).count())
}

/// A decoder's registers in the model, found by its place in the scenario.
fn registers(machine: &Machine, scenario: &Scenario, at: &At) -> Option<DecoderImage> {
    let place = match at.component {
        Component::HostBridge => {
            Place::Bridge(scenario.bridges.iter().position(|b| b.uid == at.at.uid())?)
        }
        Component::Device => {
            let mut devices = 0..scenario.devices.len();
            Place::Device(
                devices
                    .find(|device| run::path(scenario, Place::Device(*device)) == Some(at.at))?,
            )
        }
        Component::UpstreamPort => {
            // A switch is where the way to any device below it passes.
            let device = (0..scenario.devices.len()).find(|device| {
                run::path(scenario, Place::Device(*device)).is_some_and(|path| {
                    path.uid() == at.at.uid() && path.ports().starts_with(at.at.ports())
                })
            })?;
            let port = &scenario.ports[scenario.devices[device].port];
            let cxl_model::scenario::Parent::Switch(switch) = port.parent else { return None };
            Place::Switch(switch)
        }
    };
    machine.component(place)?.hdm()?.images().nth(at.index.into())
}
