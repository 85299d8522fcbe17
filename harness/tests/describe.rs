//! Machines that are described and not programmed, and windows that the library sizes, on the models.
//!
//! **Invariant**: nothing here asks the library where memory is: the models say where addresses lead,
//! and the linter what Linux makes of the table.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cxl_harness::run::{self, DirectRun};
use cxl_lint::{Input, Severity, lint};
use cxl_model::image::Images;
use cxl_model::machine::Machine;
use cxl_model::mapping::{Reach, mappings};
use cxl_model::scenario::{
    BridgeVersion, InterleavePolicy, PathPolicy, Scenario, WindowSource, builtins,
};
use cxl_regs::acpi::Cedt;
use cxl_regs::{Granularity, Size};

/// The built-in machines that no fault spoils, with a policy of this test's.
fn machines(path: PathPolicy) -> impl Iterator<Item = Scenario> {
    let all = builtins().iter().map(|found| Scenario::built_in(found.name).unwrap());
    let sound = all.filter(|scenario| {
        let restricted =
            scenario.bridges.iter().any(|bridge| bridge.version == BridgeVersion::Cxl1);
        let handed_over = scenario.windows.iter().any(|window| window.host.is_some());
        scenario.faults.is_empty() && !restricted && !handed_over
    });
    sound.map(move |mut scenario| {
        scenario.policy.path = path;
        scenario.policy.burn_spares = false;
        scenario.policy.interleave = InterleavePolicy::Flat;
        scenario.windows.iter_mut().for_each(|window| window.width = None);
        scenario.regions.clear();
        scenario
    })
}

fn run(scenario: &Scenario) -> (Machine, DirectRun) {
    let mut machine = Machine::new(scenario);
    let done = run::direct(&mut machine);
    (machine, done)
}

/// What Linux refuses of a machine with the table that was made for it.
fn refused(machine: &Machine, done: &DirectRun) -> Vec<String> {
    let findings = lint(&Input::of(machine, &done.cedt));
    let refused = findings.into_iter().filter(|finding| finding.severity == Severity::Refused);
    refused.map(|finding| format!("{finding:?}")).collect()
}

#[test]
fn what_is_described_is_as_it_was_and_linux_takes_the_table() {
    let mut described = 0;
    for scenario in machines(PathPolicy::Describe) {
        let name = &scenario.name;
        let mut before = Machine::new(&scenario);
        // What a board leaves unassigned is assigned; that is no decoder.
        run::dry(&mut before);
        let (machine, done) = run(&scenario);
        assert_eq!(machine.fabric(), before.fabric(), "{name}");
        assert_eq!(Images(&machine).to_string(), Images(&before).to_string(), "{name}");
        for (place, count) in &machine.traffic().decoders {
            assert_eq!(count.all().writes, 0, "{name}: {place:?}");
        }
        if let Some(refusal) = &done.refusal {
            // For want of a window, and for nothing that somebody would have to program.
            let place = [0x0301, 0x0302, 0x0305, 0x0306, 0x030A, 0x030B].contains(&refusal.code());
            assert!(place, "{name}: {refusal}");
            assert!(done.cedt.is_empty());
            continue;
        }
        described += 1;
        let table = Cedt::read(&done.cedt).unwrap();
        assert_eq!(table.host_bridges().count(), scenario.bridges.len(), "{name}");
        let given = machine.scenario().windows.iter().zip(&machine.map().windows);
        let mut given: Vec<_> =
            given.filter_map(|(window, base)| Some(((*base)?, window.size))).collect();
        given.sort_unstable();
        let windows: Vec<_> =
            table.windows().map(|window| (window.span().base(), window.span().size())).collect();
        assert_eq!(windows, given, "{name}");
        assert_eq!(refused(&machine, &done), [""; 0], "{name}");
    }
    assert!(described > 25, "{described} machines");
}

#[test]
fn in_windows_that_were_sized_all_memory_can_be_mapped() {
    for across in [None, Some(Granularity::K1)] {
        for mut scenario in machines(PathPolicy::LockAll) {
            // That is about how many decoders there are, and the other about their kind.
            if ["too-few-decoders"].contains(&scenario.name.as_str()) {
                continue;
            }
            scenario.windows.clear();
            scenario.platform.windows = WindowSource::Sized { across };
            scenario.platform.physical_bits = 46;
            let name = &scenario.name;
            let (machine, done) = run(&scenario);
            assert_eq!(done.refusal, None, "{name}");
            let present = (0..scenario.devices.len()).filter(|device| machine.present(*device));
            let devices = present.map(|device| &scenario.devices[device]);
            let memory: u64 = devices.map(|device| device.volatile + device.persistent).sum();
            let mapped = mappings(&machine.fabric()).into_iter();
            let direct = mapped.filter(|mapping| matches!(mapping.how, Reach::Direct(_)));
            let mapped: u64 = direct.map(|mapping| mapping.size).sum();
            assert_eq!(Size(mapped), Size(memory), "{name}");
            // Behind a pass-through bridge Linux assembles nothing, whatever the windows are.
            if scenario.bridges.iter().all(|bridge| bridge.decoders != 0) {
                assert_eq!(refused(&machine, &done), [""; 0], "{name}");
            }
        }
    }
}
