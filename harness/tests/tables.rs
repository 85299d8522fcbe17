//! The tables that an operating system boots with, read by somebody else: `iasl` takes each apart, and
//! what it makes of the DSDT compiles again without a complaint.
//!
//! **Invariant**: without iasl the tests are shown as ignored, with the remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use cxl_harness::guest::platform::{self, Extras, RootBus};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use program::Folder;
use trial::{claim, unless};

fn main() -> ExitCode {
    let there =
        Command::new(program()).arg("-v").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("tests of the tables are ignored: no iasl; install acpica-tools");
    }
    let lack = || (!there).then_some("needs iasl");
    let trials = [
        claim("iasl_reads_every_table_of_every_built_in", reads),
        claim("the_dsdt_compiles_again", compiles),
        claim("the_mcfg_has_the_buses_of_root_buses_and_no_others", buses),
        claim("a_broken_dsdt_is_not_taken", broken),
    ];
    trial::run(trials.into_iter().map(|trial| unless(lack(), trial)).collect())
}

/// The program.
fn program() -> String {
    std::env::var("IASL").unwrap_or_else(|_| "iasl".to_owned())
}

/// The tables of a scenario by signature, as they lie in memory behind the RSDP.
fn tables(name: &str) -> Vec<(String, Vec<u8>)> {
    const BASE: u64 = 0xE_0000;
    let scenario = Scenario::built_in(name).unwrap();
    let bytes = {
        let machine = Machine::new(&scenario);
        let disk = RootBus::free(&scenario, machine.map());
        platform::tables(&scenario, machine.map(), BASE, &Extras { disk, ..Extras::default() })
    };
    let dword = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let table = |at: usize| bytes[at..at + dword(at + 4)].to_vec();
    let at = |address: usize| address - BASE as usize;
    let xsdt = at(dword(24));
    let entries = (xsdt + 36..xsdt + dword(xsdt + 4)).step_by(8).map(|entry| at(dword(entry)));
    let mut all: Vec<_> = entries.map(table).collect();
    // X_DSDT of the FADT, which is the first.
    let fadt = at(dword(xsdt + 36));
    all.push(table(at(dword(fadt + 140))));
    all.into_iter().map(|table| (String::from_utf8_lossy(&table[..4]).into(), table)).collect()
}

/// What iasl says, and whether it succeeded.
fn iasl(folder: &Folder, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(program()).current_dir(folder.path("")).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words)
}

fn reads() {
    for found in builtins() {
        let folder = Folder::new();
        // The CEDT, which not every iasl knows, is read by the tests of cxl-regs.
        for (signature, table) in tables(found.name).into_iter().filter(|(name, _)| name != "CEDT")
        {
            fs::write(folder.path(&format!("{signature}.aml")), &table).unwrap();
            let (done, words) = iasl(&folder, &["-d", &format!("{signature}.aml")]);
            let what = format!("{}, {signature}: {words}", found.name);
            assert!(done, "{what}");
            for complaint in ["Error", "Warning", "Invalid", "**** ", "Unknown"] {
                assert!(!words.contains(complaint), "{what}");
            }
            let text = fs::read_to_string(folder.path(&format!("{signature}.dsl"))).unwrap();
            assert!(!text.contains("**** "), "{what}\n{text}");
        }
    }
}

fn compiles() {
    for found in builtins() {
        let folder = Folder::new();
        let all = tables(found.name);
        let (_, dsdt) = all.iter().find(|(signature, _)| signature == "DSDT").unwrap();
        fs::write(folder.path("dsdt.aml"), dsdt).unwrap();
        assert!(iasl(&folder, &["-d", "dsdt.aml"]).0);
        let (done, words) = iasl(&folder, &["-p", "again", "dsdt.dsl"]);
        assert!(done && words.contains("0 Errors, 0 Warnings"), "{}: {words}", found.name);
        assert!(Path::new(&folder.path("again.aml")).is_file());
    }
}

/// As iasl reads the MCFG: every bus of a bridge and the disk's, each once, and none besides.
fn buses() {
    for found in builtins() {
        let scenario = Scenario::built_in(found.name).unwrap();
        let machine = Machine::new(&scenario);
        let mut expected = BTreeSet::new();
        for (bridge, place) in scenario.bridges.iter().zip(&machine.map().bridges) {
            expected.extend((place.first_bus..=place.last_bus).map(|bus| (bridge.segment, bus)));
        }
        let disk = RootBus::free(&scenario, machine.map()).unwrap();
        assert!(expected.insert((disk.segment, disk.bus)));
        let folder = Folder::new();
        let all = tables(found.name);
        let (_, mcfg) = all.iter().find(|(signature, _)| signature == "MCFG").unwrap();
        fs::write(folder.path("mcfg.aml"), mcfg).unwrap();
        assert!(iasl(&folder, &["-d", "mcfg.aml"]).0);
        let text = fs::read_to_string(folder.path("mcfg.dsl")).unwrap();
        let numbers = |what: &str| -> Vec<u16> {
            let lines = text.lines().filter(|line| line.contains(what));
            let values = lines.map(|line| line.rsplit_once(" : ").unwrap().1.trim());
            values.map(|value| u16::from_str_radix(value, 16).unwrap()).collect()
        };
        let (first, last) = (numbers("Start Bus Number"), numbers("End Bus Number"));
        let segments = numbers("Segment Group Number");
        assert_eq!([first.len(), last.len()], [segments.len(); 2], "{}:\n{text}", found.name);
        let mut seen = BTreeSet::new();
        for ((segment, first), last) in segments.into_iter().zip(first).zip(last) {
            for bus in first..=last {
                let bus = (segment, u8::try_from(bus).unwrap());
                assert!(seen.insert(bus), "{}: {bus:?} twice\n{text}", found.name);
            }
        }
        assert_eq!(seen, expected, "{}:\n{text}", found.name);
    }
}

/// A DSDT whose last byte is gone is refused: the tests above could have failed.
fn broken() {
    let folder = Folder::new();
    let all = tables("two-way");
    let (_, dsdt) = all.iter().find(|(signature, _)| signature == "DSDT").unwrap();
    fs::write(folder.path("dsdt.aml"), &dsdt[..dsdt.len() - 1]).unwrap();
    let (done, words) = iasl(&folder, &["-d", "dsdt.aml"]);
    assert!(!done || words.contains("Error") || words.contains("Warning"), "{words}");
}
