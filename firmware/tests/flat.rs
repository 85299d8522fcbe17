//! The flat path against the general one, on machines made up of registers typed by hand: where both do a
//! machine they end alike, to the last register and byte; what only the general path does, the flat one
//! refuses by name and has written to no decoder.
//!
//! **Invariant**: each path has a machine of its own, made the same; every register of it is compared.

#[allow(dead_code, reason = "discovery tests use all of it")]
mod fake;

use std::cell::Cell;

use cxl_firmware::bring_up::{Workspace, bring_up, inspect};
use cxl_firmware::error::{Code, Error, Place};
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::platform::{Bridge, BridgeKind, Platform, Resources, Restrictions, Window};
use cxl_firmware::policy::{Policy, Probe};
use cxl_firmware::{flat, tables};
use cxl_regs::acpi::Identity;
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Ways};
use fake::{Assigned, Fake, Reg, Registers};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A device: units of 256 MiB of volatile and of persistent memory, decoder count code, what it is.
#[derive(Clone, Copy, Debug)]
struct DeviceShape {
    volatile: u32,
    persistent: u32,
    decoders: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Expander,
    Accelerator,
    /// It has CXL.io alone.
    NoMem,
    /// Its link did not train to CXL.mem.
    NoLink,
    /// Its device registers have no mailbox.
    Registers,
}

/// A root port: its number, and what is below it.
type PortShape = (u8, Option<DeviceShape>);

/// A window: index of its bridge, units of 256 MiB, restrictions, granularity.
type WindowShape = (usize, u32, u16, u8);

#[derive(Clone, Debug)]
struct Shape {
    /// Decoder count code of each bridge, and its ports.
    bridges: Vec<(u32, Vec<PortShape>)>,
    windows: Vec<WindowShape>,
}

const fn kept(value: u32) -> Reg {
    Reg { value, rw: !0, rw1c: 0 }
}

/// Decoders whose registers keep what is written, behind the capability at `at`; they commit at once, and
/// lock. `base` is where the block is.
fn decoders(hw: &mut Vec<fake::Reaction>, block: &mut Registers, at: u64, base: u64) {
    let count = [1, 2, 4, 6][(block[&at].value & 0xf) as usize];
    block.insert(at + 4, kept(0));
    for decoder in 0..count {
        let start = at + 0x10 + 0x20 * decoder;
        for offset in (0..0x1C).step_by(4) {
            block.insert(start + offset, kept(0));
        }
        let control = base + start + 0x10;
        for value in [0x0300, 0x1300] {
            for granularity in 0..4 {
                let value = value | granularity;
                hw.push((control, value, vec![(control, value | 0x0400)]));
            }
        }
    }
}

const UNIT: u64 = 256 << 20;

fn uid(bridge: usize) -> u32 {
    // Not in the order in which they are listed.
    [72, 12, 42][bridge]
}

fn device(hw: &mut Fake, above: usize, address: u64, shape: DeviceShape) -> fake::Function {
    let DeviceShape { volatile, persistent, decoders: code, kind } = shape;
    let registers = (kind == Kind::Registers).then(|| {
        let mut block = Registers::new();
        fake::put(&mut block, 0, &[0x0001_0000, 0, 0, 0]);
        block
    });
    let mut function = fake::endpoint(above, address, registers);
    let config = &mut function.config;
    let mut capability = if persistent > 0 { 0x002e } else { 0x001e };
    match kind {
        Kind::Accelerator => capability |= 1,
        Kind::NoMem => capability &= !4,
        _ => {}
    }
    if kind == Kind::NoLink {
        config.insert(0x16c, fake::ro(0x0022_0002));
    }
    config.insert(0x108, fake::ro(capability << 16));
    config.insert(0x114, Reg { value: 0, rw: 1, rw1c: 0 });
    config.insert(0x11c, fake::ro(volatile << 28 | 0x43));
    config.insert(0x12c, fake::ro(persistent << 28 | 0x47));
    for offset in [0x120, 0x124, 0x130, 0x134] {
        config.insert(offset, kept(0));
    }
    // Its locator, where range 2 ends.
    let block = &mut function.blocks[0].2;
    block.insert(0x1128, fake::ro(0x0000_1b10 | code));
    decoders(&mut hw.reactions, block, 0x1128, address);
    function
}

impl Shape {
    fn machine(&self) -> (Fake, Vec<Bridge>) {
        let mut hw = Fake::default();
        let mut bridges = vec![];
        for (index, (code, ports)) in self.bridges.iter().enumerate() {
            let bus = uid(index) as u8;
            let bridge = fake::bridge(uid(index), Some(bus), index as u64);
            let base = bridge.registers.0;
            for (at, register) in fake::bridge_registers(base) {
                hw.fixed.insert(at, register);
            }
            hw.fixed.insert(base + 0x1128, fake::ro(0x0000_0380 | code));
            decoders(&mut hw.reactions, &mut hw.fixed, base + 0x1128, 0);
            bridges.push(bridge);
            for (nth, (number, device_shape)) in ports.iter().enumerate() {
                let secondary = bus + 1 + nth as u8;
                let memory = 0xc00 + 0x40 * index as u16 + 4 * nth as u16;
                let address = u64::from(memory) << 20;
                let assigned = Assigned {
                    primary: bus,
                    secondary,
                    subordinate: secondary,
                    bar: address + 0x30_0000,
                    window: (memory, memory),
                };
                let above = hw.functions.len();
                hw.functions.push(fake::root_port(bus, (nth as u8) << 3, *number, assigned));
                if let Some(shape) = device_shape {
                    let function = device(&mut hw, above, address, *shape);
                    hw.functions.push(function);
                }
            }
        }
        (hw, bridges)
    }

    fn windows(&self) -> Vec<Window> {
        let mut base = 16 * UNIT;
        let each = self.windows.iter().map(|&(bridge, units, restrictions, granularity)| {
            let window = Window {
                base: Some(Hpa(base)),
                size: u64::from(units) * UNIT,
                interleave: Interleave::new(
                    Ways::One,
                    Granularity::decode(granularity).expect("a granularity"),
                ),
                arithmetic: Arithmetic::Modulo,
                xor_maps: Default::default(),
                restrictions: Restrictions::from_bits(restrictions),
                qtg: 0,
                unreadable: None,
                targets: [uid(bridge % self.bridges.len())].into_iter().collect(),
            };
            base += 32 * UNIT;
            window
        });
        let mut windows: Vec<Window> = each.collect();
        windows.reverse();
        windows
    }
}

/// Every register of a machine.
fn registers(hw: &Fake) -> Vec<(usize, u64, u32)> {
    let mut found = vec![];
    for (index, function) in hw.functions.iter().enumerate() {
        found.extend(function.config.iter().map(|(at, reg)| (index, *at, reg.value)));
        for (_, _, block) in &function.blocks {
            found.extend(block.iter().map(|(at, reg)| (index + 1000, *at, reg.value)));
        }
    }
    found.extend(hw.fixed.iter().map(|(at, reg)| (usize::MAX, *at, reg.value)));
    // A function answers 0 where it has no register, and the fake remembers that it was asked.
    found.retain(|(.., value)| *value != 0);
    found
}

const IDENTITY: Identity = Identity {
    oem_id: *b"OEMID ",
    oem_table_id: *b"OEMTABLE",
    oem_revision: 1,
    creator_id: *b"TEST",
    creator_revision: 1,
};
const TABLE: TableLocation = TableLocation { address: 0x8000_0000, size: 36 };

#[derive(Debug, PartialEq)]
struct HandedOn {
    cedt: Vec<u8>,
    record: Vec<u8>,
}

type Room = Workspace<32, 16, 64>;

fn general(hw: &mut Fake, platform: &Platform<'_>, config_lock: bool) -> Result<HandedOn, Error> {
    let mut work = Box::new(Room::new());
    let policy = Policy { config_lock, probe: Probe::Skip, ..Policy::default() };
    let _ = bring_up(hw, &mut fake::clock(), platform, &policy, &mut *work)?;
    let mut buffer = vec![0; 16 << 10];
    let cedt = tables::cedt(platform, &work.topology, &work.committed, IDENTITY, &mut buffer)?;
    let cedt = cedt.to_vec();
    tables::cross_check_hardware(hw, &cedt, &work.topology, &work.committed)?;
    let contents = work.contents(platform.ecam, Some(TABLE));
    let record = handoff::write(hw, &contents, &mut buffer)?.to_vec();
    Ok(HandedOn { cedt, record })
}

const POLICY: flat::Policy = flat::Policy { config_lock: false, assume_volatile: false };

fn flat(hw: &mut Fake, platform: &Platform<'_>, config_lock: bool) -> Result<HandedOn, Error> {
    let mut work = flat::Workspace::<4, 8, 16>::new();
    let policy = flat::Policy { config_lock, ..POLICY };
    flat::bring_up(hw, &mut fake::clock(), platform, &policy, &mut work)?;
    let mut buffer = vec![0; 16 << 10];
    let cedt = flat::cedt(hw, platform, &mut work, IDENTITY, &mut buffer)?.to_vec();
    let record = flat::hand_off(hw, platform, &mut work, Some(TABLE), &mut buffer)?.to_vec();
    Ok(HandedOn { cedt, record })
}

fn is_not_flat(error: Error) -> bool {
    [Code::DISCOVER_NOT_FLAT, Code::PLAN_NOT_FLAT].contains(&error.code)
}

/// Runs both on a machine and holds them against each other; the error of the flat one.
fn compare(shape: &Shape, config_lock: bool) -> Option<Error> {
    let ((mut one, bridges), (mut other, _)) = (shape.machine(), shape.machine());
    let windows = shape.windows();
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let expected = general(&mut one, &platform, config_lock);
    let found = flat(&mut other, &platform, config_lock);
    match (expected, found) {
        (Ok(expected), Ok(found)) => {
            let (one, both) = (registers(&one), registers(&other));
            let differ: Vec<_> = both.iter().filter(|register| !one.contains(register)).collect();
            assert!(differ.is_empty() && one.len() == both.len(), "differ: {differ:x?}");
            assert_eq!(expected, found, "what is handed on differs");
            let mut work = Box::new(Room::new());
            let policy = Policy { config_lock, ..Policy::default() };
            let judged = inspect(&mut other, &mut fake::clock(), &platform, &policy, &mut *work);
            assert_eq!(judged, Ok(()), "the general verifier");
            None
        }
        (Ok(_), Err(error)) => {
            assert!(is_not_flat(error), "only the flat path refuses: {error}");
            assert_eq!(other.writes, [], "{error}");
            Some(error)
        }
        (Err(error), Ok(_)) => panic!("the general path alone refuses: {error}"),
        (Err(expected), Err(found)) => {
            assert!(is_not_flat(found) || expected == found, "{expected}\nbut flat: {found}");
            Some(found)
        }
    }
}

fn device_shape() -> impl Strategy<Value = DeviceShape> {
    let kind = prop_oneof![
        12 => Just(Kind::Expander), 2 => Just(Kind::Accelerator), 1 => Just(Kind::NoMem),
        1 => Just(Kind::NoLink), 2 => Just(Kind::Registers),
    ];
    let persistent = prop_oneof![3 => Just(0u32), 1 => 1u32..3];
    (prop_oneof![9 => 1u32..4, 1 => Just(0u32)], persistent, 0u32..3, kind).prop_map(
        |(volatile, persistent, decoders, kind)| DeviceShape {
            volatile,
            persistent,
            decoders,
            kind,
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    let port = (0u8..12, prop::option::weighted(0.9, device_shape()));
    let bridge = (1u32..4, prop::collection::vec(port, 0..4));
    // Mostly what volatile and persistent, host-only memory wants; sometimes anything.
    let restrictions = prop_oneof![2 => Just(0x6u16), 2 => Just(0xau16), 2 => Just(0xeu16), 1 => Just(0xfu16), 1 => 0u16..16];
    let window = (0usize..3, prop_oneof![1 => 1u32..4, 5 => 4u32..16], restrictions, 0u8..3);
    let parts = (prop::collection::vec(bridge, 1..4), prop::collection::vec(window, 1..6));
    (parts, any::<bool>()).prop_map(|((bridges, mut windows), anything)| {
        if !anything {
            // One for each kind of memory of each bridge.
            let kinds = [(14, 0x6), (8, 0xa), (14, 0x5)].map(|(units, kind)| {
                (0..bridges.len()).map(move |bridge| (bridge, units, kind, bridge as u8))
            });
            windows = kinds.into_iter().flatten().collect();
        }
        Shape { bridges, windows }
    })
}

/// The law, and that enough machines get to its end for it to say something.
#[test]
fn where_both_do_a_machine_they_end_alike() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 768,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (alike, refused) = (Cell::new(0), Cell::new(0));
    let result = runner.run(&(shape(), any::<bool>()), |(shape, config_lock)| {
        let memory = shape.bridges.iter().any(|(_, ports)| {
            ports.iter().any(|(_, device)| device.is_some_and(|device| device.volatile > 0))
        });
        match compare(&shape, config_lock) {
            None => alike.set(alike.get() + usize::from(memory)),
            Some(error) if is_not_flat(error) => refused.set(refused.get() + 1),
            Some(_) => {}
        }
        Ok(())
    });
    println!("{} alike, {} not flat", alike.get(), refused.get());
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(alike.get() >= 50, "only {} machines with memory end alike", alike.get());
}

fn expander(volatile: u32, persistent: u32) -> Option<DeviceShape> {
    Some(DeviceShape { volatile, persistent, decoders: 2, kind: Kind::Expander })
}

/// Two bridges; below one a device of both kinds of memory and one of one kind; below the other one.
fn good() -> Shape {
    Shape {
        bridges: vec![
            (2, vec![(3, expander(2, 1)), (1, expander(1, 0)), (2, None)]),
            (2, vec![(0, expander(3, 0))]),
        ],
        windows: vec![(0, 8, 0x6, 1), (1, 4, 0xe, 0), (0, 4, 0xa, 0)],
    }
}

#[test]
fn a_machine_of_every_kind_of_part_ends_alike() {
    for config_lock in [false, true] {
        assert_eq!(compare(&good(), config_lock), None);
    }
    // And so does a machine with nothing to map.
    let empty = Shape { bridges: vec![(2, vec![])], windows: vec![(0, 4, 0x6, 0)] };
    assert_eq!(compare(&empty, false), None);
}

#[test]
fn what_is_not_flat_is_refused_by_name_and_nothing_is_written() {
    type Change = fn(&mut Fake, &mut Vec<Bridge>, &mut Vec<Window>, &mut Vec<Resources>);
    let cases: &[(Code, &str, Change)] = &[
        (Code::DISCOVER_NOT_FLAT, "bridge 72: a CXL 1.1 host bridge", |_, bridges, _, _| {
            bridges[0].kind = BridgeKind::Rcrb;
        }),
        (Code::DISCOVER_NOT_FLAT, "bridge 72: its root bus is not given", |_, bridges, _, _| {
            bridges[0].root = None;
        }),
        (Code::DISCOVER_NOT_FLAT, "bridge 12: resources to assign are given", |_, _, _, given| {
            given.push(fake::resources(12, 0xd000_0000, 0x1000_0000));
        }),
        (Code::DISCOVER_NOT_FLAT, "bridge 72: has no decoders of its own", |hw, bridges, _, _| {
            hw.fixed.insert(bridges[0].registers.0 + 0x100c, fake::ro(0));
        }),
        (Code::DISCOVER_NOT_FLAT, "bridge 72 function 0000:4a:00.0: a switch", |hw, _, _, _| {
            let assigned =
                Assigned { primary: 74, secondary: 90, subordinate: 90, ..Assigned::default() };
            let switch = fake::upstream_port(2, assigned);
            hw.functions[3] = switch;
        }),
        (
            Code::DISCOVER_NOT_FLAT,
            "bridge 72, decoder 3: committed already",
            |hw, bridges, _, _| {
                hw.fixed.insert(bridges[0].registers.0 + 0x1128 + 0x80, fake::ro(0x1600));
            },
        ),
        (Code::PLAN_NOT_FLAT, "window 0x500000000: interleaves", |_, _, windows, _| {
            windows[0].interleave.ways = Ways::Two;
            windows[0].targets.push(12).expect("room");
        }),
        (Code::PLAN_NOT_FLAT, "window 0x500000000: has XOR arithmetic", |_, _, windows, _| {
            windows[0].arithmetic = Arithmetic::Xor;
        }),
        (Code::PLAN_NOT_FLAT, "window 0x500000000: has less than 256 MiB", |_, _, windows, _| {
            windows[0].size = 0x800_0000;
        }),
    ];
    for (code, words, change) in cases {
        let (mut hw, mut bridges) = good().machine();
        let (mut windows, mut given) = (good().windows(), vec![]);
        change(&mut hw, &mut bridges, &mut windows, &mut given);
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &given) };
        let error = flat(&mut hw, &platform, false).expect_err(words);
        assert_eq!(error.code, *code, "{words}: {error}");
        assert!(error.is_failure());
        #[cfg(feature = "sentences")]
        assert!(error.to_string().starts_with(words), "{words}: {error}");
        assert_eq!(hw.writes, [], "{words}");
    }
}

#[test]
fn tables_that_were_read_in_part_are_refused_by_both() {
    let code = Code::DISCOVER_RECORD_PASSED_OVER;
    let listed = Error { at: Place::byte(0x44), ..code.error() };
    let broken = Code::TABLES_WINDOW.at(Place::window(Some(Hpa(0x5_0000_0000))));
    let cases = [
        (vec![listed], None, Error { code: Code::PLATFORM_RECORD, ..listed }),
        (vec![], Some(broken), broken),
    ];
    for (unreadable, of_window, expected) in cases {
        let (mut hw, bridges) = good().machine();
        let mut windows = good().windows();
        windows[0].unreadable = of_window;
        let platform = fake::platform(&bridges, &[]);
        let platform = Platform { windows: &windows, unreadable: &unreadable, ..platform };
        assert_eq!(general(&mut hw, &platform, false), Err(expected));
        assert_eq!(flat(&mut hw, &platform, false), Err(expected));
        assert_eq!(hw.writes, []);
    }
}

#[test]
fn what_there_is_no_room_for_is_refused_by_name() {
    let (mut hw, bridges) = good().machine();
    let windows = good().windows();
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut details = vec![];
    let run = |hw: &mut Fake, work: flat::WorkspaceMut<'_>| {
        flat::bring_up(hw, &mut fake::clock(), &platform, &POLICY, work)
            .expect_err("there is no room")
    };
    let (mut few_bridges, mut few_ports, mut few_regions) = (
        flat::Workspace::<1, 8, 16>::new(),
        flat::Workspace::<4, 3, 16>::new(),
        flat::Workspace::<4, 8, 3>::new(),
    );
    for work in [(&mut few_bridges).into(), (&mut few_ports).into(), (&mut few_regions).into()] {
        let error = run(&mut hw, work);
        assert!(is_not_flat(error), "{error}");
        details.push((error.code, error.detail));
        assert_eq!(hw.writes, []);
    }
    assert_eq!(
        details,
        [(Code::DISCOVER_NOT_FLAT, 6), (Code::DISCOVER_NOT_FLAT, 7), (Code::PLAN_NOT_FLAT, 5)]
    );
}

/// The address of the Control register of a bridge's decoder.
fn bridge_control(bridge: &Bridge, decoder: u64) -> u64 {
    bridge.registers.0 + 0x1128 + 0x20 * (decoder + 1)
}

#[test]
fn a_failure_puts_back_what_no_lock_holds_and_no_table_is_made() {
    let (mut hw, bridges) = good().machine();
    let windows = good().windows();
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let before = registers(&hw);
    // The first device's first decoder refuses its commit: nothing is locked.
    let trigger = hw.reactions.iter().position(|(at, ..)| *at == 0xc400_1148);
    let trigger = trigger.expect("a decoder of the device below bridge 12");
    for reaction in &mut hw.reactions[trigger..trigger + 8] {
        reaction.2 = vec![(reaction.0, reaction.1 | 0x0800)];
    }
    let mut work = flat::Workspace::<4, 8, 16>::new();
    let result = flat::bring_up(&mut hw, &mut fake::clock(), &platform, &POLICY, &mut work);
    assert_eq!(result.expect_err("a refusal").code, Code::COMMIT_REFUSED);
    assert_eq!(registers(&hw), before, "not all is as it was");
    let mut buffer = vec![0; 1024];
    let table = flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer);
    assert_eq!(table.expect_err("no table").code, Code::TABLES_UNREAD);
    let record = flat::hand_off(&mut hw, &platform, &mut work, None, &mut buffer);
    assert_eq!(record.expect_err("no record").code, Code::TABLES_UNREAD);
}

#[test]
fn a_decoder_that_forgets_its_lock_or_changes_later_is_seen() {
    let (mut hw, bridges) = good().machine();
    let windows = good().windows();
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = flat::Workspace::<4, 8, 16>::new();
    let result = flat::bring_up(&mut hw, &mut fake::clock(), &platform, &POLICY, &mut work);
    assert_eq!(result, Ok(()));
    let mut buffer = vec![0; 1024];
    flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer).expect("a table");
    let control = bridge_control(&bridges[0], 0);
    let kept = hw.fixed[&control].value;
    hw.fixed.get_mut(&control).expect("a register").value = kept & !0x100;
    let table = flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer);
    assert_eq!(table.expect_err("unlocked").code, Code::VERIFY_UNLOCKED_ON_PATH);
    hw.fixed.get_mut(&control).expect("a register").value = kept;
    // Somebody commits a spare one.
    let spare = bridge_control(&bridges[0], 3);
    hw.fixed.get_mut(&spare).expect("a register").value = 0x1600;
    let table = flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer);
    assert_eq!(table.expect_err("not planned").code, Code::VERIFY_NOT_IN_PLAN);
}

/// What it takes in memory and, on x86-64, the README says.
#[test]
fn four_bridges_and_eight_devices_take_less_than_four_kib() {
    let size = size_of::<flat::Workspace<4, 8, 16>>();
    println!("{size} bytes");
    assert!(size <= 4096, "{size}");
}
