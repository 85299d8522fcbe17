//! The flat path of the library against the general one: on every built-in machine, and on machines made
//! up for it, they end alike, or the flat one refuses by name and has written to no decoder.
//!
//! **Invariant**: both run on a machine of their own; what is compared is every register that either can
//! reach, and every byte of what they hand on.

use cxl_firmware::bring_up::{Workspace, bring_up, inspect};
use cxl_firmware::error::{Code, Error, Phase};
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{Policy, Probe};
use cxl_firmware::{flat, tables};
use cxl_harness::run::{self, IDENTITY};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::mmio::Mmio;
use proptest::prelude::*;

/// Where the next stage would find the table.
const TABLE: TableLocation = TableLocation { address: 0x8000_0000, size: 36 };

/// The bytes that are handed on.
#[derive(Debug, PartialEq)]
struct HandedOn {
    cedt: Vec<u8>,
    record: Vec<u8>,
}

fn platform_of(machine: &mut Machine) -> Option<run::Tables> {
    run::prepare(machine).ok()?;
    run::platform(machine).ok()
}

fn general(
    machine: &mut Machine,
    platform: &Platform<'_>,
    config_lock: bool,
) -> Result<HandedOn, Error> {
    let mut clock = machine.clock();
    let mut work = Box::new(Workspace::<64, 32, 128>::new());
    let policy = Policy { config_lock, probe: Probe::Skip, ..Policy::default() };
    let _ = bring_up(machine, &mut clock, platform, &policy, &mut *work)?;
    let mut buffer = vec![0; 64 << 10];
    let cedt = tables::cedt(platform, &work.topology, &work.committed, IDENTITY, &mut buffer)?;
    let cedt = cedt.to_vec();
    tables::cross_check_hardware(machine, &cedt, &work.topology, &work.committed)?;
    let contents = work.contents(platform.ecam, Some(TABLE));
    let record = handoff::write(machine, &contents, &mut buffer)?.to_vec();
    Ok(HandedOn { cedt, record })
}

fn flat(
    machine: &mut Machine,
    platform: &Platform<'_>,
    config_lock: bool,
) -> Result<HandedOn, Error> {
    let mut clock = machine.clock();
    let mut work = flat::Workspace::<8, 16, 32>::new();
    let policy = flat::Policy { config_lock, ..flat::Policy::default() };
    flat::bring_up(machine, &mut clock, platform, &policy, &mut work)?;
    let mut buffer = vec![0; 64 << 10];
    let cedt = flat::cedt(machine, platform, &mut work, IDENTITY, &mut buffer)?.to_vec();
    let record = flat::hand_off(machine, platform, &mut work, Some(TABLE), &mut buffer)?.to_vec();
    Ok(HandedOn { cedt, record })
}

/// Every dword of configuration space and of component registers, by address.
fn registers(machine: &mut Machine) -> Vec<(u64, u32)> {
    let blocks: Vec<u64> = {
        let places = machine.places();
        let of = |place| [machine.config_of(place), machine.registers_of(place)];
        places.into_iter().flat_map(of).flatten().collect()
    };
    let mut found = vec![];
    for (base, offset) in
        blocks.into_iter().flat_map(|base| (0..0x2000).step_by(4).map(move |offset| (base, offset)))
    {
        // Configuration space has 4 KiB; what lies behind it in a block of registers counts.
        let address = base + offset;
        found.push((address, machine.read(address)));
    }
    found
}

/// The registers of all decoders.
fn decoders(machine: &mut Machine) -> Vec<u32> {
    let places = machine.places();
    let blocks: Vec<u64> = places.into_iter().filter_map(|p| machine.registers_of(p)).collect();
    let all = |base| (0x1000..0x2000).step_by(4).map(move |offset| base + offset);
    blocks.into_iter().flat_map(all).map(|address| machine.read(address)).collect()
}

/// How two runs of one machine ended.
#[derive(Debug, PartialEq)]
enum End {
    /// Alike, both well.
    Alike,
    /// The general one alone went well: the flat one refused by name.
    NotFlat(Error),
    /// Neither.
    Refused(Error),
    /// It is no machine that reaches the library.
    None,
}

fn is_not_flat(error: Error) -> bool {
    [Code::DISCOVER_NOT_FLAT, Code::PLAN_NOT_FLAT].contains(&error.code)
}

/// Runs both, and holds them against each other.
fn compare(scenario: &Scenario, config_lock: bool) -> End {
    let (mut one, mut other) = (Machine::new(scenario), Machine::new(scenario));
    let (Some(tables), Some(_)) = (platform_of(&mut one), platform_of(&mut other)) else {
        return End::None;
    };
    let platform = tables.platform();
    let before = decoders(&mut other);
    let (expected, found) =
        (general(&mut one, &platform, config_lock), flat(&mut other, &platform, config_lock));
    match (expected, found) {
        (Ok(expected), Ok(found)) => {
            assert_eq!(registers(&mut one), registers(&mut other), "registers differ");
            assert_eq!(expected, found, "what is handed on differs");
            let mut work = Box::new(Workspace::<64, 32, 128>::new());
            let policy = Policy { config_lock, ..Policy::default() };
            let mut clock = other.clock();
            let judged = inspect(&mut other, &mut clock, &platform, &policy, &mut *work);
            assert_eq!(judged, Ok(()), "the general verifier");
            End::Alike
        }
        (Ok(_), Err(error)) => {
            assert!(is_not_flat(error), "only the flat path refuses: {error}");
            assert_eq!(decoders(&mut other), before, "a decoder was written to: {error}");
            End::NotFlat(error)
        }
        (Err(error), Ok(_)) => panic!("the general path alone refuses: {error}"),
        (Err(expected), Err(found)) => {
            // A verifier that finds several things wrong need not name the same one first.
            let both = [expected, found].map(|error| error.phase() == Phase::Verify);
            let same = expected == found || both == [true; 2];
            assert!(is_not_flat(found) || same, "{expected}\nbut flat: {found}");
            End::Refused(found)
        }
    }
}

#[test]
fn built_in_machines_end_alike_or_are_refused_by_name() {
    let mut alike = 0;
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).expect("a built-in scenario");
        // It dies after so many accesses, and the paths make different numbers of them.
        if builtin.name == "dead-device" {
            continue;
        }
        for config_lock in [false, true] {
            let end = compare(&scenario, config_lock);
            println!("{:24} {end:?}", builtin.name);
            alike += usize::from(end == End::Alike);
        }
    }
    assert!(alike >= 8, "only {alike} runs did the same");
}

/// A device: volatile and persistent units of 256 MiB, decoders, what kind it is.
type DeviceShape = (u8, u8, u8, u8);

/// A machine as a scenario, not always a good one.
fn text(
    bridges: &[(u8, Vec<Option<DeviceShape>>)],
    windows: &[(u8, u8, u8)],
    oddity: u8,
) -> String {
    let mut text = String::from("description = \"made up\"\n");
    for (number, (decoders, _)) in bridges.iter().enumerate() {
        // In an order that is not that of the UIDs.
        let uid = if number % 2 == 0 { 64 - 16 * number } else { 16 * number };
        text += &format!("[[bridge]]\nname = \"b{number}\"\nuid = {uid}\n");
        if *decoders > 0 {
            text += &format!("decoders = {}\n", [1, 2, 4, 6][usize::from(*decoders) % 4]);
        }
    }
    for (number, (_, ports)) in bridges.iter().enumerate() {
        for port in 0..ports.len() {
            text += &format!("[[port]]\nname = \"p{number}{port}\"\nbelow = \"b{number}\"\n");
        }
    }
    for (number, (_, ports)) in bridges.iter().enumerate() {
        for (port, device) in ports.iter().enumerate() {
            let Some((volatile, persistent, decoders, kind)) = *device else { continue };
            text +=
                &format!("[[device]]\nname = \"m{number}{port}\"\nbelow = \"p{number}{port}\"\n");
            text += &format!("volatile = \"{}MiB\"\n", 256 * u32::from(volatile));
            if persistent > 0 {
                text += &format!("persistent = \"{}MiB\"\n", 256 * u32::from(persistent));
            }
            text += &format!("decoders = {}\n", [1, 2, 4][usize::from(decoders) % 3]);
            if kind == 0 {
                text += "kind = \"type2\"\ncoherency = \"device\"\n";
            }
        }
    }
    for &(target, size, restrictions) in windows {
        let target = usize::from(target) % bridges.len();
        let uses = [
            r#""host-only", "volatile""#,
            r#""host-only", "persistent""#,
            r#""host-only", "volatile", "persistent""#,
            r#""host-only", "device-coherent", "volatile", "persistent""#,
            r#""device-coherent", "volatile""#,
        ];
        let uses = uses[usize::from(restrictions) % uses.len()];
        let other = (target + 1) % bridges.len();
        let targets = if oddity == 1 && other != target {
            format!("\"b{target}\", \"b{other}\"")
        } else {
            format!("\"b{target}\"")
        };
        text += &format!(
            "[[window]]\ntargets = [{targets}]\nsize = \"{}MiB\"\nrestrictions = [{uses}]\n",
            512 * (1 + u32::from(size)),
        );
    }
    text
}

fn device() -> impl Strategy<Value = DeviceShape> {
    (0u8..4, prop_oneof![3 => Just(0u8), 1 => 1u8..3], 0u8..3, 0u8..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The law.
    #[test]
    fn machines_made_up_end_alike_or_are_refused_by_name(
        bridges in prop::collection::vec(
            (1u8..5, prop::collection::vec(prop::option::weighted(0.85, device()), 0..4)), 1..4),
        windows in prop::collection::vec((any::<u8>(), 0u8..8, any::<u8>()), 1..5),
        oddity in 0u8..8,
        config_lock in any::<bool>(),
    ) {
        let text = text(&bridges, &windows, oddity);
        if let Ok(scenario) = Scenario::parse(&text, "made-up") {
            compare(&scenario, config_lock);
        }
    }
}
