//! Platforms as they are, from the table to memory: the library on the models, with what the models say of
//! each address and what Linux would say of the registers.
//!
//! **Invariant**: nothing here asks the library where memory is. Where it is expected is typed by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;

use cxl_firmware::bring_up::Extent;
use cxl_harness::run::{self, DirectRun};
use cxl_lint::{Input, Rule, Severity, lint};
use cxl_model::machine::Machine;
use cxl_model::mapping::{Reach, mappings};
use cxl_model::scenario::Scenario;
use cxl_regs::acpi::cedt::Cedt;
use cxl_regs::mmio::Mmio;

const GIB: u64 = 1 << 30;
const UNIT: u64 = 256 << 20;

fn booted(text: &str) -> (Machine, DirectRun) {
    let scenario = Scenario::parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    (machine, done)
}

/// Ranges that lead to memory, and how many devices share each, as the models prove it.
fn direct(machine: &Machine) -> Vec<(u64, u64, usize)> {
    let all = mappings(&machine.fabric()).into_iter();
    all.filter_map(|mapping| match &mapping.how {
        Reach::Direct(direct) => Some((mapping.hpa.0, mapping.size, direct.members.len())),
        Reach::Trapped { .. } => None,
    })
    .collect()
}

/// What Linux refuses, rule by rule.
fn refused(machine: &Machine, cedt: &[u8]) -> Vec<Rule> {
    let found = lint(&Input::of(machine, cedt)).into_iter();
    found.filter(|f| f.severity == Severity::Refused).map(|finding| finding.rule).collect()
}

/// One socket of a server: four bridges, a 4-way window by XOR, and for each bridge a window for volatile
/// and one for persistent memory; beside them a CXL 1.1 host with a window of its own.
fn server(policy: &str) -> String {
    let mut text = format!("{policy}\n");
    for (at, uid) in [0x03, 0x23, 0x43, 0x53].into_iter().enumerate() {
        text += &format!("[[bridge]]\nuid = {uid}\n[[port]]\nbelow = \"hb{at}\"\n");
        text += &format!(
            "[[device]]\nbelow = \"port{at}\"\nvolatile = \"1GiB\"\npersistent = \"1GiB\"\n"
        );
    }
    text += "[[bridge]]\nname = \"rch\"\nuid = 0x122\nbus = 0x60\nversion = \"1.1\"\n";
    text += "[[window]]\ntargets = [\"hb0\", \"hb1\", \"hb2\", \"hb3\"]\narithmetic = \"xor\"\n\
             xor_maps = [0x404100, 0x808200]\nbase = \"0x10000000000\"\nsize = \"64GiB\"\n\
             restrictions = [\"host-only\", \"volatile\"]\n";
    for (kind, base) in [("volatile", 0x200u64), ("persistent", 0x300)] {
        for at in 0..4u64 {
            let base = (base + at * 0x10) << 32;
            text += &format!(
                "[[window]]\ntargets = [\"hb{at}\"]\nbase = {base}\nsize = \"16GiB\"\n\
                 restrictions = [\"host-only\", \"{kind}\"]\n"
            );
        }
    }
    text + "[[window]]\ntargets = [\"rch\"]\nbase = \"0x40000000000\"\nsize = \"16GiB\"\n"
}

#[test]
fn a_server_with_several_windows_a_bridge_and_a_cxl_1_1_host_comes_up_as_the_policy_prefers() {
    let wide = vec![(0x100 << 32, 4 * GIB, 4)];
    let each = |base: u64| (0..4).map(move |at| ((base + at * 0x10) << 32, GIB, 1));
    let persistent: Vec<_> = each(0x300).collect();
    for (policy, expected) in [
        ("[policy]\nprefer = \"lowest\"", each(0x200).chain(persistent.clone()).collect()),
        (
            "[policy]\ninterleave = \"widest\"\nprefer = \"widest\"",
            [wide, persistent.clone()].concat(),
        ),
        (
            "[policy]\ninterleave = \"widest\"\nprefer = \"narrowest\"",
            each(0x200).chain(persistent).collect::<Vec<_>>(),
        ),
    ] {
        let (machine, done) = booted(&server(policy));
        assert_eq!((&done.refusal, done.extent), (&None, Extent::Whole), "{policy}");
        assert_eq!(direct(&machine), expected, "{policy}");
        assert_eq!(refused(&machine, &done.cedt), [], "{policy}");
        let table = Cedt::read(&done.cedt).unwrap();
        assert_eq!((table.host_bridges().count(), table.windows().count()), (5, 10));
    }
    let (_, done) = booted(&server("[policy]\ninterleave = \"widest\""));
    assert_eq!(done.refusal.unwrap().code(), 0x0303);
}

/// The platform of the kernel's convention for low memory holes: twelve bridges, 2 GiB at 0, the rest
/// from 4 GiB on.
fn hole() -> String {
    let mut text = String::from("[platform]\nmemory_base = \"64GiB\"\n");
    text += "[policy]\ntarget = \"specification\"\n";
    let mut targets = vec![];
    for at in 0..12 {
        text += &format!("[[bridge]]\nuid = {}\n[[port]]\nbelow = \"hb{at}\"\n", 16 + 4 * at);
        text += &format!("[[device]]\nbelow = \"port{at}\"\nvolatile = \"1GiB\"\n");
        targets.push(format!("\"hb{at}\""));
    }
    let (targets, devices) = (targets.join(", "), targets.join(", ").replace("hb", "mem"));
    text +=
        &format!("[[window]]\nname = \"low\"\ntargets = [{targets}]\nbase = 0\nsize = \"2GiB\"\n");
    text += &format!(
        "[[window]]\nname = \"high\"\ntargets = [{targets}]\nbase = \"4GiB\"\nsize = \"12GiB\"\n"
    );
    text += &format!("[[region]]\ndevices = [{devices}]\nwindow = \"low\"\nsize = \"3GiB\"\n");
    text + &format!("[[region]]\ndevices = [{devices}]\nwindow = \"high\"\n")
}

#[test]
fn memory_at_0_ends_where_the_hole_begins_and_goes_on_behind_it() {
    let (mut machine, done) = booted(&hole());
    assert_eq!((&done.refusal, done.extent), (&None, Extent::Whole));
    assert_eq!(direct(&machine), [(0, 2 * GIB, 12), (4 * GIB, 9 * GIB, 12)]);
    // Every decoder obeys the rule that the window does not.
    let fabric = machine.fabric();
    for hdm in fabric.bridges.iter().map(|b| &b.hdm).chain(fabric.devices.iter().map(|d| &d.hdm)) {
        let decoders = &hdm.as_ref().unwrap().decoders;
        let found: Vec<_> = decoders.iter().take(2).map(|d| (d.base(), d.size())).collect();
        assert_eq!(found, [(0, 3 * GIB), (4 * GIB, 9 * GIB)]);
        assert!(decoders.iter().take(2).all(|image| image.control().locked()));
    }
    // What is handed on is memory that answers, and no more.
    let map: Vec<_> = done.room.committed.memory_map().map(|range| range.span).collect();
    let found: Vec<_> = map.iter().map(|span| (span.base().0, span.size())).collect();
    assert_eq!(found, [(0, 2 * GIB), (4 * GIB, 9 * GIB)]);
    for address in [0, 2 * GIB - 4, 4 * GIB, 13 * GIB - 4] {
        machine.write(address, 0x5A00_0000 | (address >> 28) as u32);
    }
    for address in [0, 2 * GIB - 4, 4 * GIB, 13 * GIB - 4] {
        assert_eq!(machine.read(address), 0x5A00_0000 | (address >> 28) as u32);
    }
    assert_eq!(machine.read(2 * GIB), u32::MAX);
    // The table has both windows as the platform has them.
    let table = Cedt::read(&done.cedt).unwrap();
    assert_eq!(table.check(), Ok(()));
    let windows: Vec<_> = table
        .windows()
        .map(|w| (w.span().base().0, w.span().size(), w.restrictions.fixed()))
        .collect();
    assert_eq!(windows, [(0, 2 * GIB, true), (4 * GIB, 12 * GIB, true)]);
    // Linux has no window for the decoders that reach into the hole, and says so; what is behind it comes
    // up. So a plan for Linux refuses it.
    let refused: BTreeSet<Rule> = refused(&machine, &done.cedt).into_iter().collect();
    assert_eq!(refused, BTreeSet::from([Rule::LowMemoryHole]));
    let (_, linux) = booted(&hole().replacen("specification", "linux", 1));
    assert_eq!(linux.refusal.unwrap().code(), 0x0333);
    // A second run finds it as it is.
    let left = machine.fabric();
    let again = run::direct(&mut machine);
    assert_eq!((again.refusal, again.cedt == done.cedt), (None, true));
    assert_eq!(machine.fabric(), left);
}

#[test]
fn a_window_where_ram_is_has_no_place() {
    // The same, but with RAM at 0, as on a machine whose window did not fit.
    let (machine, done) = booted(&hole().replacen("memory_base = \"64GiB\"\n", "", 1));
    assert_eq!(done.refusal.unwrap().code(), 0x0305);
    assert_eq!(direct(&machine), []);
}

#[test]
fn a_window_too_small_for_its_bridges_is_told_and_costs_nothing() {
    let text = hole().replacen(
        "[[region]]",
        &format!(
            "[[window]]\ntargets = [\"hb0\", \"hb1\"]\nbase = \"32GiB\"\nsize = {UNIT}\n[[region]]"
        ),
        1,
    );
    let (_, done) = booted(&text);
    assert_eq!(done.refusal, None);
    let notes: Vec<u16> = done.room.plan.notes.iter().map(|note| note.code()).collect();
    assert_eq!(notes, [0x0389]);
    assert_eq!(Cedt::read(&done.cedt).unwrap().windows().count(), 2);
}

#[test]
fn what_the_scenario_leaves_out_is_not_touched_and_no_loss() {
    let policy = "leave_out = [\"mem2\", \"hb3\"]\n[policy]\nprefer = \"lowest\"";
    let (mut machine, scenario) = {
        let scenario = Scenario::parse(&server(policy), "test").unwrap();
        (Machine::new(&scenario), scenario)
    };
    machine.recorder_mut().keep();
    let done = run::direct(&mut machine);
    assert_eq!((&done.refusal, done.extent), (&None, Extent::Whole));
    let accesses = machine.recorder_mut().take();
    let touched = |name: &str| {
        accesses.iter().any(|access| access.place.is_some_and(|at| scenario.name_of(at) == name))
    };
    assert!(touched("mem0") && touched("hb2"));
    assert!(!touched("mem2") && !touched("hb3") && !touched("port3") && !touched("mem3"));
    assert_eq!(direct(&machine).len(), 4);
}
