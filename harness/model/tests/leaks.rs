//! Leaks of locks: each comes through exactly where its scenario says, and nowhere else.
//!
//! Addresses and bits are typed by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod rig;

use cxl_model::device::Reset;
use cxl_model::machine::{Landing, Machine};
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::Dpa;
use cxl_regs::mmio::Mmio;
use rig::*;

/// [`SMALL`] with a leak, the path committed and locked, CONFIG_LOCK set.
fn leaky(leak: &str) -> Machine {
    let mut machine = machine(&format!("{SMALL}\n[[leak]]\n{leak}\n"));
    let control = HOST_ONLY | LOCK | COMMIT;
    program(&mut machine, "mem0", 0, (1 << 32, UNIT, 0), control);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (1 << 32, UNIT, 5), control);
    let lock = dvsec(&machine, "mem0") + 0x14;
    machine.write(lock, 1);
    machine
}

/// All that locks cover of the device, and the bridge's decoder.
fn locked(machine: &mut Machine) -> Vec<u32> {
    let at = dvsec(machine, "mem0");
    let config = [0x0C, 0x14, 0x20, 0x24, 0x30, 0x34].map(|offset| machine.read(at + offset));
    let decoders = ["mem0", "hb0"].map(|name| dwords(machine, name, 0));
    decoders.concat().into_iter().chain(config).collect()
}

/// What a store changes of what is locked: how many dwords.
fn changes(machine: &mut Machine, address: u64, bytes: &[u8]) -> usize {
    let before = locked(machine);
    machine.write_bytes(address, bytes);
    before.into_iter().zip(locked(machine)).filter(|(before, after)| before != after).count()
}

#[test]
fn width_and_value_are_the_ones_that_the_leak_names() {
    let cases: [(&str, &[u8], bool); 14] = [
        ("width = 1", &[0x70], true),
        ("width = 1", &[0x70, 0], false),
        ("width = 1", &[0, 0, 0, 0x70], false),
        ("width = 2", &[0x70, 7], true),
        ("width = 4", &[0x70, 7, 0, 0], true),
        ("width = 8", &[0x70, 7, 0, 0, 0, 0, 0, 0x20], true),
        ("width = 8", &[0x70, 7, 0, 0], false),
        ("value = \"all-ones\"", &[0xFF; 4], true),
        ("value = \"all-ones\"", &[0xFF, 0xFF, 0xFF, 0xFE], false),
        // Base High is 1.
        ("value = \"zero\"", &[0; 4], true),
        ("value = \"several-bits\"", &[0x07, 0, 0, 0], true),
        ("value = \"several-bits\"", &[0x03, 0, 0, 0], false),
        ("value = \"0x12345678\"", &[0x78, 0x56, 0x34, 0x12], true),
        ("value = \"0x12345678\"", &[0x79, 0x56, 0x34, 0x12], false),
    ];
    for (what, bytes, comes_through) in cases {
        let mut machine = leaky(&format!("at = \"mem0\"\nregister = \"base_high\"\n{what}"));
        let at = decoder(&machine, "mem0", 0) + 4;
        let changed = changes(&mut machine, at, bytes);
        assert_eq!(changed, usize::from(comes_through), "{what} {bytes:?}");
    }
}

#[test]
fn bits_outside_the_leak_stay() {
    let mut machine = leaky("at = \"hb0\"\nregister = \"control\"\nbits = \"0xf\"");
    let at = decoder(&machine, "hb0", 0) + 0x10;
    let before = machine.read(at);
    machine.write(at, !before);
    assert_eq!(machine.read(at), before ^ 0xF);
    // Commit goes, and Committed with it.
    let mut machine = leaky("at = \"mem0\"\nregister = \"control\"\nbits = \"0x200\"");
    let at = decoder(&machine, "mem0", 0) + 0x10;
    machine.write(at, 0);
    assert_eq!(machine.read(at), HOST_ONLY | LOCK);
    assert_eq!(machine.resolve(1 << 32), None);
}

#[test]
fn a_lock_opens_while_what_the_leak_names_is_so() {
    /// Where something is written that opens the lock: HDM structure, configuration space, DVSEC.
    type Opens = fn(&mut Machine);
    let cases: [(&str, Opens); 6] = [
        ("while = \"HDM Decoder Enable\"\nis = \"off\"", |machine| {
            let at = component(machine, "mem0") + GLOBAL;
            machine.write(at, 0);
        }),
        ("while = \"Bus Master\"\nis = \"off\"", |machine| {
            let at = config(machine, "mem0") + 4;
            machine.write(at, 2);
        }),
        ("while = \"Interrupt Line\"\nof = \"rp0\"\nis = \"on\"", |machine| {
            let at = config(machine, "rp0") + 0x3C;
            machine.write(at, 7);
        }),
        ("while = \"another-committed\"", |machine| {
            program(machine, "mem0", 1, (1 << 33, UNIT, 0), HOST_ONLY | COMMIT);
        }),
        ("while = \"overlapped\"", |machine| {
            program(machine, "mem0", 1, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT);
        }),
        ("after = \"cxl\"", |machine| machine.reset_device(0, Reset::Cxl)),
    ];
    for (what, open) in cases {
        let mut machine = leaky(&format!("at = \"mem0\"\nregister = \"size_high\"\n{what}"));
        let at = decoder(&machine, "mem0", 0) + 0x0C;
        assert_eq!(changes(&mut machine, at, &[1, 2, 3, 4]), 0, "{what}");
        open(&mut machine);
        assert_eq!(changes(&mut machine, at, &[1, 2, 3, 4]), 1, "{what}");
    }
    // Not over a range beside, nor once the writes are fewer.
    let mut beside = leaky("at = \"mem0\"\nregister = \"size_high\"\nwhile = \"overlapped\"");
    program(&mut beside, "mem0", 1, (1 << 33, UNIT, 0), HOST_ONLY | COMMIT);
    let at = decoder(&beside, "mem0", 0) + 0x0C;
    assert_eq!(changes(&mut beside, at, &[1; 4]), 0);
    let mut late = leaky("at = \"mem0\"\nregister = \"size_high\"\nwrites = 1000");
    let opened = (1..2000).find(|_| changes(&mut late, at, &[1; 4]) != 0).unwrap();
    assert!((900..1000).contains(&opened), "{opened}");
}

#[test]
fn a_lock_opens_where_a_bar_was_moved_to() {
    let mut machine = leaky("at = \"mem0\"\nregister = \"base_high\"\nwhile = \"bar-moved\"");
    let (bar, at) = (config(&machine, "mem0") + 0x10, decoder(&machine, "mem0", 0) + 4);
    assert_eq!(changes(&mut machine, at, &[9; 4]), 0);
    let moved = machine.read(bar) + 0x4_0000;
    machine.write(bar, moved);
    assert_eq!(changes(&mut machine, at + 0x4_0000, &[9; 4]), 1);
}

#[test]
fn a_commit_under_way_beside_it_opens_a_lock() {
    let polls = "at = \"mem0\"\nkind = \"commit-polls\"\ndecoder = 1\nafter = 5";
    let leak = "at = \"mem0\"\nregister = \"base_high\"\nwhile = \"another-commits\"";
    let mut machine = leaky(&format!("{leak}\n[[fault]]\n{polls}"));
    let at = decoder(&machine, "mem0", 0) + 4;
    let control = program(&mut machine, "mem0", 1, (1 << 33, UNIT, 0), HOST_ONLY | COMMIT);
    assert_eq!(control & COMMITTED, 0);
    machine.write(at, 7);
    assert_eq!(machine.read(at), 7);
    let control = decoder(&machine, "mem0", 1) + 0x10;
    assert!((0..10).any(|_| machine.read(control) & COMMITTED != 0));
    machine.write(at, 3);
    assert_eq!(machine.read(at), 7);
}

#[test]
fn decode_follows_where_nothing_shows() {
    let mut machine = leaky("at = \"mem0\"\nregister = \"route_high\"\nshows = false");
    let at = decoder(&machine, "mem0", 0) + 0x18;
    let landing = |machine: &Machine| machine.resolve(1 << 32);
    assert_eq!(landing(&machine), Some(Landing { device: 0, dpa: Dpa(0) }));
    assert_eq!(changes(&mut machine, at, &[1, 0, 0, 0]), 0);
    assert_eq!(landing(&machine), Some(Landing { device: 0, dpa: Dpa(1 << 32) }));
    assert!(machine.misroutes(0));
    machine.reset(Reset::Cold);
    assert_eq!(landing(&machine), None);
}

#[test]
fn a_register_elsewhere_flips_what_is_locked() {
    for (by, register) in
        [("mem0", "Cache Line Size"), ("rp0", "Interrupt Line"), ("mem0", "Mailbox Control")]
    {
        let mut machine = leaky(&format!(
            "at = \"mem0\"\nregister = \"dvsec\"\noffset = 0x20\nbits = 1\nby = \"{by}\"\n\
             by_register = \"{register}\""
        ));
        let at = match register {
            "Cache Line Size" => config(&machine, "mem0") + 0x0C,
            "Interrupt Line" => config(&machine, "rp0") + 0x3C,
            // The device registers lie behind the component registers; the mailbox at 0x100.
            _ => component(&machine, "mem0") + 0x1_0104,
        };
        assert_eq!(changes(&mut machine, at, &[0]), 1, "{by} {register}");
        assert_eq!(changes(&mut machine, at + 8, &[0]), 0, "{by} {register}");
    }
}

#[test]
fn nothing_leaks_before_the_lock() {
    let mut machine =
        machine(&format!("{SMALL}\n[[leak]]\nat = \"mem0\"\nregister = \"base_low\"\nwidth = 1\n"));
    let at = decoder(&machine, "mem0", 0);
    machine.write_bytes(at + 3, &[0xF0]);
    assert_eq!(machine.read(at), 0);
    assert_eq!(place(&machine, "mem0"), Place::Device(0));
}

#[test]
fn a_leak_that_would_be_void_is_refused_with_its_place() {
    let cases = [
        ("at = \"rp0\"\nregister = \"base_low\"", "3:6: `decoder`: expected"),
        ("at = \"mem0\"\nregister = \"global_control\"", "4:12: `register`: expected"),
        ("at = \"mem0\"\nregister = \"dvsec\"", "4:12: expected the key `offset`"),
        ("at = \"mem0\"\nregister = \"base_low\"\nwidth = 3", "5:9: `width`: expected"),
        ("at = \"mem0\"\nregister = \"base_low\"\nvalue = \"some\"", "5:9: `value`: expected"),
        ("at = \"mem0\"\nregister = \"base_low\"\nwhile = \"Bus Slave\"", "5:9: `while`: expected"),
        (
            "at = \"mem0\"\nregister = \"base_low\"\nwhile = \"Bus Master\"",
            "5:9: expected the key `is`",
        ),
        ("at = \"mem0\"\nregister = \"base_low\"\nis = \"on\"", "5:6: expected no key `is`"),
        (
            "at = \"mem0\"\nregister = \"base_low\"\nby = \"rp0\"",
            "5:6: expected the key `by_register`",
        ),
    ];
    for (leak, expected) in cases {
        // The table is the second line.
        let text = format!("{}[[leak]]\n{leak}\n", "\n");
        let text = text + SMALL;
        let error = Scenario::parse(&text, "test").unwrap_err().to_string();
        let found = error.contains(expected);
        assert!(found, "{leak}: {error}");
    }
}

/// What can never come through on the machine would be a mutant that no attack can find.
#[test]
fn a_leak_that_never_happens_is_refused_with_the_reason() {
    let cases = [
        (
            "at = \"mem0\"\nregister = \"base_high\"\nbits = 4\nvalue = \"several-bits\"",
            "of one bit",
        ),
        (
            "at = \"mem0\"\nregister = \"base_high\"\nwidth = 1\nvalue = \"0x7\"",
            "a store of 1 byte",
        ),
        ("at = \"lone\"\nregister = \"base_high\"\nwhile = \"another-committed\"", "no other"),
        ("at = \"lone\"\nregister = \"base_high\"\nwhile = \"overlapped\"", "lone has no other"),
        ("at = \"lone\"\nregister = \"base_high\"\nwhile = \"another-commits\"", "no other"),
        ("at = \"mem0\"\nregister = \"base_high\"\nwhile = \"another-commits\"", "take no time"),
        (
            "at = \"mem0\"\nregister = \"dvsec\"\noffset = 12\nwhile = \"overlapped\"",
            "no decoder lies",
        ),
        ("at = \"hb0\"\nregister = \"base_high\"\nwhile = \"bar-moved\"", "behind no BAR"),
        ("at = \"hb0\"\nregister = \"base_high\"\nafter = \"flr\"", "hb0 is no device"),
        ("at = \"hb0\"\nregister = \"base_high\"\nafter = \"cxl\"", "goes through no CXL Reset"),
        (
            "at = \"hb0\"\nregister = \"base_high\"\nwhile = \"HDM Decoder Enable\"\nis = \"on\"",
            "always reads 0",
        ),
        (
            "at = \"mem0\"\nregister = \"base_high\"\nwhile = \"Initiate CXL Reset\"\nis = \"on\"",
            "always reads 0",
        ),
        (
            "at = \"mem0\"\nregister = \"base_high\"\nby = \"mem0\"\nby_register = \"vendor memory\"",
            "only an accelerator",
        ),
        (
            "at = \"acc0\"\nregister = \"base_high\"\nby = \"acc0\"\nby_register = \"Mailbox Control\"",
            "has no mailbox",
        ),
    ];
    let machine = "[[bridge]]\nname = \"hb0\"\nuid = 1\n\
                   [[port]]\nname = \"rp0\"\nbelow = \"hb0\"\n\
                   [[port]]\nname = \"rp1\"\nbelow = \"hb0\"\n\
                   [[port]]\nname = \"rp2\"\nbelow = \"hb0\"\n\
                   [[device]]\nname = \"mem0\"\nbelow = \"rp0\"\nvolatile = \"256MiB\"\n\
                   [[device]]\nname = \"lone\"\nbelow = \"rp1\"\nvolatile = \"256MiB\"\ndecoders = 1\n\
                   [[device]]\nname = \"acc0\"\nbelow = \"rp2\"\nkind = \"type2\"\nvolatile = \"256MiB\"\n\
                   [[window]]\ntargets = [\"hb0\"]\nsize = \"1GiB\"\n";
    for (leak, because) in cases {
        let text = format!("{machine}[[leak]]\n{leak}\n");
        let error = Scenario::parse(&text, "void").expect_err(leak).to_string();
        assert!(error.contains(because), "{leak}: {error}");
        assert!(error.contains("expected no key `"), "{leak}: {error}");
    }
}
