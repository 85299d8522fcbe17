//! The HDM decoder state machine against the rules of CXL r3.1 section 8.2.4.20, with register
//! values typed by hand.

use cxl_model::device::hdm::{CommitTime, HdmBlock, Judgement, Refusal};
use cxl_model::device::{Effect, Reset};
use cxl_regs::Component;
use cxl_regs::access::Features;
use cxl_regs::hdm::{Capability, DECODER_SPECS};
use proptest::prelude::*;

const GLOBAL: u16 = 0x04;
const LOCK: u32 = 1 << 8;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const HOST_ONLY: u32 = 1 << 12;
/// 4 decoders, 8 targets, all selector bits, 3/6/12 and 16 ways.
const CAPABILITY: u32 = 0x0000_1B82;
const UNIT: u64 = 0x1000_0000;

fn block(component: Component) -> HdmBlock {
    HdmBlock::new(component, Features::NONE, Capability::from_bits(CAPABILITY))
}

fn device() -> HdmBlock {
    block(Component::Device)
}

/// Offset of dword `dword` of decoder `n`.
fn at(n: u16, dword: u16) -> u16 {
    0x10 + 0x20 * n + 4 * dword
}

fn read(block: &mut HdmBlock, offset: u16) -> u32 {
    block.read(offset, 0).0
}

fn write(block: &mut HdmBlock, offset: u16, value: u32) -> Effect {
    block.write(offset, value, 0)
}

fn control(block: &mut HdmBlock, n: u16) -> u32 {
    read(block, at(n, 4))
}

/// Writes a range and a route, then control.
fn program(block: &mut HdmBlock, n: u16, base: u64, size: u64, route: u64, control: u32) -> u32 {
    for (dword, value) in [(0, base), (2, size), (5, route)] {
        let _ = write(block, at(n, dword), value as u32);
        let _ = write(block, at(n, dword + 1), (value >> 32) as u32);
    }
    let _ = write(block, at(n, 4), control);
    self::control(block, n)
}

fn dwords(block: &mut HdmBlock, n: u16) -> [u32; 8] {
    std::array::from_fn(|dword| read(block, at(n, dword as u16)))
}

/// A decoder at 4 GiB, 256 MiB, locked.
fn locked_device() -> HdmBlock {
    let mut block = device();
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, UNIT, 0x1300), 0x1700);
    block
}

#[test]
fn locked_decoder_refuses_every_bit_of_every_dword() {
    for component in Component::ALL {
        let mut block = block(component);
        program(&mut block, 0, 1 << 32, UNIT, 0x0403_0201, 0x1300);
        let before = dwords(&mut block, 0);
        assert_eq!(before[4], 0x1700, "{component}");
        for dword in 0..8 {
            for bit in 0..32 {
                for value in [before[dword] ^ 1 << bit, 1 << bit, !(1 << bit)] {
                    assert_eq!(write(&mut block, at(0, dword as u16), value), Effect::None);
                    assert_eq!(dwords(&mut block, 0), before, "{component} {dword} {value:#x}");
                }
            }
        }
        assert_eq!(block.misuse(), Default::default());
    }
}

#[test]
fn unlocked_decoder_has_exactly_the_writable_bits_of_its_component() {
    // Commit is left out of control: it would start something.
    let device_masks = [0xF000_0000, !0, 0xF000_0000, !0, 0x0000_11FF, 0xF000_0000, !0, 0];
    let port_masks = [0xF000_0000, !0, 0xF000_0000, !0, 0x0000_11FF, !0, !0, 0];
    for (component, masks) in [
        (Component::Device, device_masks),
        (Component::HostBridge, port_masks),
        (Component::UpstreamPort, port_masks),
    ] {
        let mut block = block(component);
        for dword in 0..8 {
            let ones = if dword == 4 { !COMMIT } else { !0 };
            let _ = write(&mut block, at(1, dword), ones);
        }
        assert_eq!(dwords(&mut block, 1), masks, "{component}");
        assert_eq!(dwords(&mut block, 0), [0; 8], "{component}: decoder 0 was not written");
        assert_eq!(dwords(&mut block, 2), [0; 8], "{component}: decoder 2 was not written");
    }
}

#[test]
fn lock_without_commit_freezes_nothing() {
    let mut block = device();
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, 0, 0x1100), 0x1100);
    let _ = write(&mut block, at(0, 1), 7);
    assert_eq!(read(&mut block, at(0, 1)), 7);
    let _ = write(&mut block, at(0, 4), 0x1000);
    assert_eq!(control(&mut block, 0), 0x1000);
}

#[test]
fn lock_and_commit_in_one_store_lock_at_once() {
    let mut block = locked_device();
    let _ = write(&mut block, at(0, 1), 9);
    assert_eq!(read(&mut block, at(0, 1)), 1);
}

#[test]
fn uncommit_of_a_locked_decoder_is_ignored() {
    let mut block = locked_device();
    assert_eq!(write(&mut block, at(0, 4), 0), Effect::None);
    assert_eq!(control(&mut block, 0), 0x1700);
    assert_eq!(block.translate(1 << 32), Some(UNIT));
}

#[test]
fn uncommit_of_an_unlocked_decoder_opens_it() {
    let mut block = device();
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, 0, HOST_ONLY | COMMIT), 0x1600);
    assert_eq!(write(&mut block, at(0, 4), HOST_ONLY), Effect::Remap);
    assert_eq!(control(&mut block, 0), HOST_ONLY);
    assert_eq!(block.translate(1 << 32), None);
}

#[test]
fn refused_commit_leaves_the_decoder_writable_and_clearing_commit_clears_the_error() {
    let mut block = device();
    // Decoder 1 before decoder 0.
    let refused = program(&mut block, 1, 1 << 32, UNIT, 0, HOST_ONLY | LOCK | COMMIT);
    assert_eq!(refused, HOST_ONLY | LOCK | COMMIT | ERROR);
    assert_eq!(block.refusal(1), Some(Refusal::PreviousNotCommitted));
    let _ = write(&mut block, at(1, 1), 2);
    assert_eq!(read(&mut block, at(1, 1)), 2, "still writable");
    // Commit is still 1: writing it again is no new commit.
    program(&mut block, 0, 1 << 32, UNIT, 0, HOST_ONLY | COMMIT);
    let _ = write(&mut block, at(1, 4), HOST_ONLY | LOCK | COMMIT);
    assert_eq!(control(&mut block, 1), HOST_ONLY | LOCK | COMMIT | ERROR);
    let _ = write(&mut block, at(1, 4), HOST_ONLY | LOCK);
    assert_eq!(control(&mut block, 1), HOST_ONLY | LOCK);
    let _ = write(&mut block, at(1, 4), HOST_ONLY | LOCK | COMMIT);
    assert_eq!(control(&mut block, 1), HOST_ONLY | LOCK | COMMIT | COMMITTED);
}

/// (what, component, decoder 0 or none, decoder 1 as (base, size, route, control), verdict with
/// lock, verdict without)
type Case = (
    &'static str,
    Component,
    Option<(u64, u64)>,
    (u64, u64, u64, u32),
    Result<(), Refusal>,
    Result<(), Refusal>,
);

#[test]
fn commit_checks_happen_with_lock_and_encodings_always() {
    use Component::{Device, HostBridge, UpstreamPort};
    use Refusal::{
        BelowPrevious, DuplicateTarget, Encoding, NotDivisibleByThree, PreviousNotCommitted, Wraps,
    };
    const G4: u64 = 1 << 32;
    let below = Some((G4, 2 * UNIT));
    let free = G4 + 2 * UNIT;
    let two_ways = 0x10;
    let cases: &[Case] = &[
        ("adjacent", Device, below, (free, UNIT, 0, 0), Ok(()), Ok(())),
        ("gap", Device, below, (free + UNIT, UNIT, 0, 0), Ok(()), Ok(())),
        ("overlap", Device, below, (free - UNIT, UNIT, 0, 0), Err(BelowPrevious), Ok(())),
        ("below", Device, below, (0, UNIT, 0, 0), Err(BelowPrevious), Ok(())),
        ("bridge below", HostBridge, below, (0, UNIT, 0, 0), Err(BelowPrevious), Ok(())),
        ("alone", Device, None, (G4, UNIT, 0, 0), Err(PreviousNotCommitted), Ok(())),
        ("switch alone", UpstreamPort, None, (G4, UNIT, 0, 0), Err(PreviousNotCommitted), Ok(())),
        ("size 0 at the end of the one below", Device, below, (free, 0, 0, 0), Ok(()), Ok(())),
        ("size 0 at 0", Device, below, (0, 0, 0, 0), Err(BelowPrevious), Ok(())),
        ("up to 2^64", Device, below, (0u64.wrapping_sub(UNIT), UNIT, 0, 0), Err(Wraps), Ok(())),
        ("past 2^64", Device, below, (1 << 63, 1 << 63, 0, 0), Err(Wraps), Ok(())),
        ("3 ways", Device, below, (free, 3 * UNIT, 0, 0x80), Ok(()), Ok(())),
        (
            "3 ways, 4 units",
            Device,
            below,
            (free, 4 * UNIT, 0, 0x80),
            Err(NotDivisibleByThree),
            Ok(()),
        ),
        (
            "12 ways, 4 units",
            Device,
            below,
            (free, 4 * UNIT, 0, 0xA0),
            Err(NotDivisibleByThree),
            Ok(()),
        ),
        ("2 ways, 1 unit", Device, below, (free, UNIT, 0, two_ways), Ok(()), Ok(())),
        (
            "one port twice",
            HostBridge,
            below,
            (free, UNIT, 0x0101, two_ways),
            Err(DuplicateTarget),
            Ok(()),
        ),
        ("two ports", HostBridge, below, (free, UNIT, 0x0201, two_ways), Ok(()), Ok(())),
        (
            "twice beyond the ways",
            HostBridge,
            below,
            (free, UNIT, 0x0101_0201, two_ways),
            Ok(()),
            Ok(()),
        ),
        (
            "the eighth is the first",
            UpstreamPort,
            below,
            (free, UNIT, 0x0107_0605_0403_0201, 0x30),
            Err(DuplicateTarget),
            Ok(()),
        ),
        ("16 ways", Device, below, (free, 16 * UNIT, 0, 0x40), Ok(()), Ok(())),
        (
            "bridge 16 ways",
            HostBridge,
            below,
            (free, 16 * UNIT, 0, 0x40),
            Err(Encoding),
            Err(Encoding),
        ),
        (
            "switch 3 ways",
            UpstreamPort,
            below,
            (free, 3 * UNIT, 0, 0x80),
            Err(Encoding),
            Err(Encoding),
        ),
        ("reserved IW 5", Device, below, (free, UNIT, 0, 0x50), Err(Encoding), Err(Encoding)),
        ("reserved IW 7", HostBridge, below, (free, UNIT, 0, 0x70), Err(Encoding), Err(Encoding)),
        ("reserved IW 11", Device, below, (free, UNIT, 0, 0xB0), Err(Encoding), Err(Encoding)),
        ("reserved IW 15", Device, below, (free, UNIT, 0, 0xF0), Err(Encoding), Err(Encoding)),
        ("reserved IG 7", Device, below, (free, UNIT, 0, 0x07), Err(Encoding), Err(Encoding)),
        ("reserved IG 15", HostBridge, below, (free, UNIT, 0, 0x0F), Err(Encoding), Err(Encoding)),
        ("16 KiB 1 way", Device, below, (free, UNIT, 0, 0x06), Ok(()), Ok(())),
        ("16 KiB 2 ways: bit 14", Device, below, (free, UNIT, 0, 0x16), Ok(()), Ok(())),
        (
            "16 KiB 4 ways: bit 15",
            Device,
            below,
            (free, UNIT, 0, 0x26),
            Err(Encoding),
            Err(Encoding),
        ),
        ("8 KiB 12 ways: bit 14", Device, below, (free, 3 * UNIT, 0, 0xA5), Ok(()), Ok(())),
        (
            "16 KiB 12 ways: bit 15",
            Device,
            below,
            (free, 3 * UNIT, 0, 0xA6),
            Err(Encoding),
            Err(Encoding),
        ),
    ];
    for &(what, component, decoder0, (base, size, route, bits), locked, unlocked) in cases {
        for (lock, expected) in [(LOCK, locked), (0, unlocked)] {
            let mut block = block(component);
            if let Some((base, size)) = decoder0 {
                program(&mut block, 0, base, size, 0, HOST_ONLY | COMMIT);
            }
            let after = program(&mut block, 1, base, size, route, bits | HOST_ONLY | lock | COMMIT);
            assert_eq!(block.refusal(1), expected.err(), "{what}, lock {lock:#x}");
            let status = if expected.is_ok() { COMMITTED } else { ERROR };
            assert_eq!(after & (COMMITTED | ERROR), status, "{what}, lock {lock:#x}");
        }
    }
}

#[test]
fn capabilities_decide_what_a_component_can_interleave() {
    // (capability, component, control, accepted)
    for (capability, component, bits, accepted) in [
        // Selectors 11:8 only, then 14:12 only.
        (0x0000_0110, Component::Device, 0x10, true),
        (0x0000_0110, Component::Device, 0x14, false),
        (0x0000_0110, Component::Device, 0x04, true),
        (0x0000_0210, Component::Device, 0x10, false),
        (0x0000_0210, Component::Device, 0x14, true),
        (0x0000_0110, Component::Device, 0x23, false),
        (0x0000_0310, Component::Device, 0x23, true),
        // Without and with the 3/6/12 and 16 way bits.
        (0x0000_0310, Component::Device, 0x80, false),
        (0x0000_0B10, Component::Device, 0x80, true),
        (0x0000_0310, Component::Device, 0x40, false),
        (0x0000_1310, Component::Device, 0x40, true),
        // Four targets.
        (0x0000_0340, Component::HostBridge, 0x20, true),
        (0x0000_0340, Component::HostBridge, 0x30, false),
        // Device-coherent only: the type bit is hardwired, the commit goes through.
        (0x0020_0310, Component::Device, HOST_ONLY, true),
        // Host-only coherent only.
        (0x0040_0310, Component::Device, HOST_ONLY, true),
        (0x0040_0310, Component::Device, 0, false),
    ] {
        let mut block = HdmBlock::new(component, Features::NONE, Capability::from_bits(capability));
        let after = program(&mut block, 0, 0, 48 * UNIT, 0x0807_0605_0403_0201, bits | COMMIT);
        assert_eq!(after & COMMITTED != 0, accepted, "{capability:#x} {component} {bits:#x}");
    }
}

#[test]
fn hardwired_type_bit_loses_the_other_value() {
    let mut block =
        HdmBlock::new(Component::Device, Features::NONE, Capability::from_bits(0x0020_0310));
    let _ = write(&mut block, at(0, 4), HOST_ONLY);
    assert_eq!(control(&mut block, 0), 0);
}

#[test]
fn back_invalidate_needs_the_feature_and_a_device_coherent_range() {
    const BI: u32 = 1 << 13;
    let capability = Capability::from_bits(0x0060_0310);
    let mut without = HdmBlock::new(Component::Device, Features::NONE, capability);
    assert_eq!(program(&mut without, 0, 0, UNIT, 0, BI | COMMIT), COMMIT | COMMITTED);
    let mut with = HdmBlock::new(Component::Device, Features::ALL, capability);
    assert_eq!(program(&mut with, 0, 0, UNIT, 0, BI | COMMIT), BI | COMMIT | COMMITTED);
    let mut with = HdmBlock::new(Component::Device, Features::ALL, capability);
    program(&mut with, 0, 0, UNIT, 0, BI | HOST_ONLY | COMMIT);
    assert_eq!(with.refusal(0), Some(Refusal::Coherency));
}

#[test]
fn lenient_block_accepts_everything_and_still_locks() {
    let mut block = device();
    block.set_judgement(Judgement::Lenient);
    let after = program(&mut block, 1, 0, UNIT, 0, 0xFF | LOCK | COMMIT);
    assert_eq!(after, 0xFF | LOCK | COMMIT | COMMITTED);
    assert_eq!(block.translate(0), None, "a reserved code leads nowhere");
    let _ = write(&mut block, at(1, 0), !0);
    assert_eq!(read(&mut block, at(1, 0)), 0);
}

#[test]
fn ignored_lock_is_stored_and_means_nothing() {
    let mut block = device();
    block.ignore_lock(Some(0));
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, 0, 0x1300), 0x1700);
    let _ = write(&mut block, at(0, 1), 7);
    assert_eq!(read(&mut block, at(0, 1)), 7);
    let _ = write(&mut block, at(0, 4), 0x1100);
    assert_eq!(control(&mut block, 0), 0x1100);
    assert_eq!(block.misuse().changed_while_committed, 1);
}

#[test]
fn lost_lock_is_seen_as_often_as_asked_and_then_locks_nothing() {
    let mut block = device();
    block.lose_lock(Some(0), 2);
    // The first read is the program's own.
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, 0, 0x1300), 0x1700);
    let _ = write(&mut block, at(0, 1), 7);
    assert_eq!(read(&mut block, at(0, 1)), 1, "still locked");
    assert_eq!(control(&mut block, 0), 0x1700);
    assert_eq!(control(&mut block, 0), 0x1600);
    let _ = write(&mut block, at(0, 1), 7);
    assert_eq!(read(&mut block, at(0, 1)), 7);
    // The next commit starts over.
    let _ = write(&mut block, at(0, 4), 0x1000);
    assert_eq!(program(&mut block, 0, 1 << 32, UNIT, 0, 0x1300), 0x1700);
    assert_eq!(control(&mut block, 0), 0x1700);
    assert_eq!(control(&mut block, 0), 0x1600);
}

#[test]
fn leaking_block_leaks_the_named_bits_and_no_other() {
    let fields = DECODER_SPECS.iter().flat_map(|spec| spec.fields.iter().map(move |f| (spec, f)));
    let mut leaks = 0;
    for (spec, field) in fields {
        if field.name.starts_with("Target Port") || matches!(field.name, "Committed" | "BI" | "UIO")
        {
            continue;
        }
        for bit in (0..32).filter(|bit| field.mask() >> bit & 1 == 1) {
            let mut block = locked_device();
            block.leak(0x10 + spec.offset, field.mask());
            let before = dwords(&mut block, 0);
            let dword = spec.offset / 4;
            // Every other dword first: nothing else may give.
            for other in (0..8).filter(|other| *other != dword) {
                let _ = write(&mut block, at(0, other), !before[usize::from(other)]);
                assert_eq!(dwords(&mut block, 0), before, "{} leaks into {other}", field.name);
            }
            let _ = write(&mut block, at(0, dword), before[usize::from(dword)] ^ 1 << bit);
            let changed = dwords(&mut block, 0)[usize::from(dword)] ^ before[usize::from(dword)];
            let expected = match field.name {
                // Taking the commit back takes its result with it.
                "Commit" => COMMIT | COMMITTED,
                "Error Not Committed" | "UIG" | "UIW" | "ISP" => 0,
                _ => 1 << bit,
            };
            assert_eq!(changed, expected, "{} bit {bit}", field.name);
            leaks += 1;
        }
    }
    assert!(leaks > 100, "{leaks} bits tried");
}

#[test]
fn change_of_a_committed_unlocked_decoder_takes_effect_and_is_counted() {
    let mut block = device();
    program(&mut block, 0, 1 << 32, UNIT, 0, HOST_ONLY | COMMIT);
    assert_eq!(block.misuse().changed_while_committed, 0);
    assert_eq!(write(&mut block, at(0, 1), 2), Effect::Remap);
    assert_eq!(block.misuse().changed_while_committed, 1);
    assert_eq!(block.translate(2 << 32), Some(0));
    assert_eq!(write(&mut block, at(0, 1), 2), Effect::None, "same value");
    assert_eq!(block.misuse().changed_while_committed, 1);
}

#[test]
fn commit_is_a_remap_and_programming_is_not() {
    let mut block = device();
    for dword in [0, 1, 2, 3, 5, 6] {
        assert_eq!(write(&mut block, at(0, dword), !0), Effect::None);
    }
    let _ = write(&mut block, at(0, 1), 0);
    let _ = write(&mut block, at(0, 3), 0);
    assert_eq!(write(&mut block, at(0, 4), HOST_ONLY | COMMIT), Effect::Remap);
}

#[test]
fn commit_takes_as_many_polls_as_asked() {
    for polls in 0..5 {
        let mut block = device();
        block.set_commit_time(Some(0), CommitTime::Polls(polls));
        let _ = write(&mut block, at(0, 2), UNIT as u32);
        let _ = write(&mut block, at(0, 4), HOST_ONLY | COMMIT);
        for poll in 0..polls {
            assert_eq!(block.read(at(0, 4), 0), (HOST_ONLY | COMMIT, Effect::None), "{poll}");
            // Other registers are no polls.
            let _ = block.read(at(0, 0), 0);
        }
        let effect = if polls == 0 { Effect::None } else { Effect::Remap };
        assert_eq!(block.read(at(0, 4), 0), (HOST_ONLY | COMMIT | COMMITTED, effect), "{polls}");
    }
}

#[test]
fn commit_takes_as_long_as_asked() {
    let mut block = device();
    block.set_commit_time(None, CommitTime::Microseconds(100));
    let _ = block.write(at(0, 4), HOST_ONLY | COMMIT, 50);
    assert_eq!(block.read(at(0, 4), 149), (HOST_ONLY | COMMIT, Effect::None));
    assert_eq!(block.read(at(0, 4), 150), (HOST_ONLY | COMMIT | COMMITTED, Effect::Remap));
}

#[test]
fn commit_that_never_ends_can_be_withdrawn_and_lets_nothing_else_through() {
    let mut block = device();
    block.set_commit_time(Some(0), CommitTime::Never);
    let waiting = HOST_ONLY | LOCK | COMMIT;
    program(&mut block, 0, 1 << 32, UNIT, 0, waiting);
    for _ in 0..1000 {
        assert_eq!(block.read(at(0, 4), u64::MAX - 1).0, waiting);
    }
    let _ = write(&mut block, at(0, 1), 9);
    assert_eq!(read(&mut block, at(0, 1)), 1, "held while the commit is under way");
    assert_eq!(block.misuse().written_during_commit, 1);
    let _ = write(&mut block, at(0, 4), HOST_ONLY);
    assert_eq!(control(&mut block, 0), HOST_ONLY);
    let _ = write(&mut block, at(0, 1), 9);
    assert_eq!(read(&mut block, at(0, 1)), 9, "open again");
}

#[test]
fn refused_by_scenario_is_an_error() {
    let mut block = device();
    block.refuse_commits(Some(0));
    let after = program(&mut block, 0, 1 << 32, UNIT, 0, HOST_ONLY | COMMIT);
    assert_eq!(after, HOST_ONLY | COMMIT | ERROR);
    assert_eq!(block.refusal(0), Some(Refusal::Fault));
}

#[test]
fn stuck_bits_stay_zero() {
    let mut block = device();
    block.stick(at(1, 0), 0x3000_0000);
    block.stick(GLOBAL, 2);
    for (offset, expected) in [(at(1, 0), 0xC000_0000), (at(0, 0), 0xF000_0000), (GLOBAL, 0)] {
        let _ = write(&mut block, offset, !0);
        assert_eq!(read(&mut block, offset), expected, "{offset:#x}");
    }
}

#[test]
fn decoder_enable_exists_in_devices_only_and_no_lock_freezes_it() {
    for (component, expected) in
        [(Component::Device, 2), (Component::HostBridge, 0), (Component::UpstreamPort, 0)]
    {
        let mut block = block(component);
        program(&mut block, 0, 1 << 32, UNIT, 0, 0x1300);
        let _ = write(&mut block, GLOBAL, !0);
        assert_eq!(read(&mut block, GLOBAL), expected, "{component}");
        let _ = write(&mut block, GLOBAL, 0);
        assert_eq!(read(&mut block, GLOBAL), 0, "{component}");
    }
}

#[test]
fn capability_is_read_only_and_reserved_dwords_read_zero() {
    let mut block = device();
    for offset in [0x00, 0x08, 0x0C, 0x2C, 0x90, 0xFFC] {
        let _ = write(&mut block, offset, !0);
        assert_eq!(read(&mut block, offset), if offset == 0 { CAPABILITY } else { 0 });
    }
}

#[test]
fn resets_clear_what_they_clear_and_nothing_else() {
    // (reset, locked decoder 0 stays, unlocked decoder 1 stays, global control stays)
    for (reset, locked, unlocked, global) in [
        (Reset::Cold, false, false, false),
        (Reset::Warm, false, false, false),
        (Reset::Hot, false, false, false),
        (Reset::Cxl, true, false, false),
        (Reset::Flr, true, true, true),
    ] {
        let mut block = locked_device();
        program(&mut block, 1, 2 << 32, UNIT, 0, HOST_ONLY | COMMIT);
        program(&mut block, 2, 3 << 32, UNIT, 0, HOST_ONLY | LOCK);
        let _ = write(&mut block, GLOBAL, 2);
        let before = [0, 1, 2].map(|n| dwords(&mut block, n));
        block.reset(reset);
        let stays = [locked, unlocked, unlocked];
        for n in 0..3usize {
            let expected = if stays[n] { before[n] } else { [0; 8] };
            assert_eq!(dwords(&mut block, n as u16), expected, "{reset:?} decoder {n}");
        }
        assert_eq!(read(&mut block, GLOBAL), if global { 2 } else { 0 }, "{reset:?}");
    }
}

#[test]
fn decode_order_and_skips_follow_the_specification() {
    let mut block = device();
    // Two units at skip 1, then 4 units 2-way at skip 3: DPA 1..3 and 6..8.
    program(&mut block, 0, 0x1_0000_0000, 2 * UNIT, UNIT, HOST_ONLY | COMMIT);
    program(&mut block, 1, 0x2_0000_0000, 4 * UNIT, 3 * UNIT, HOST_ONLY | 0x10 | COMMIT);
    for (hpa, dpa) in [
        (0x1_0000_0000, Some(UNIT)),
        (0x1_1FFF_FFFF, Some(3 * UNIT - 1)),
        (0x1_2000_0000, None),
        (0x2_0000_0000, Some(6 * UNIT)),
        (0x2_0000_02FF, Some(6 * UNIT + 0x1FF)),
        (0x2_3FFF_FFFF, Some(8 * UNIT - 1)),
        (0x0_FFFF_FFFF, None),
    ] {
        assert_eq!(block.translate(hpa), dpa, "{hpa:#x}");
    }
    // A zero-size decoder claims nothing and moves nothing, whatever its skip.
    program(&mut block, 2, 0x2_4000_0000, 0, UNIT, HOST_ONLY | COMMIT);
    program(&mut block, 3, 0x2_4000_0000, UNIT, 0, HOST_ONLY | COMMIT);
    assert_eq!(block.translate(0x2_4000_0000), Some(8 * UNIT));
}

#[test]
fn decoder_that_is_not_committed_takes_no_device_addresses() {
    let mut block = device();
    program(&mut block, 0, 0x1_0000_0000, 2 * UNIT, UNIT, HOST_ONLY);
    program(&mut block, 1, 0x2_0000_0000, UNIT, 3 * UNIT, HOST_ONLY | COMMIT);
    assert_eq!(block.translate(0x2_0000_0000), Some(3 * UNIT));
}

#[test]
fn specification_example_of_translation() {
    // CXL r3.1 section 8.2.4.20.13, worked example: 8 ways at 512 bytes, 32 GiB then 4 GiB.
    let mut block = device();
    program(&mut block, 0, 32 << 30, 32 << 30, 0, 0x31 | HOST_ONLY | COMMIT);
    program(&mut block, 1, 128 << 30, 4 << 30, 0, 0x31 | HOST_ONLY | COMMIT);
    assert_eq!(block.translate((129 << 30) + 1028), Some((4 << 30) + 0x0800_0004));
}

#[test]
fn ports_are_chosen_by_address_bits() {
    let mut block = block(Component::HostBridge);
    // 4 ways at 1 KiB: bits 11:10.
    program(&mut block, 0, 1 << 32, 4 * UNIT, 0x4433_2211, HOST_ONLY | 0x22 | COMMIT);
    for (hpa, port) in [
        (0x1_0000_0000, Some(0x11)),
        (0x1_0000_03FF, Some(0x11)),
        (0x1_0000_0400, Some(0x22)),
        (0x1_0000_0800, Some(0x33)),
        (0x1_0000_0FFF, Some(0x44)),
        (0x1_0000_1000, Some(0x11)),
        (0x1_4000_0000, None),
    ] {
        assert_eq!(block.route(hpa), port, "{hpa:#x}");
    }
}

proptest! {
    /// Whatever is written in whatever order, a locked decoder keeps every bit.
    #[test]
    fn no_sequence_of_writes_moves_a_locked_decoder(
        writes in prop::collection::vec((0u16..0x90, any::<u32>()), 0..200),
    ) {
        let mut block = locked_device();
        let before = dwords(&mut block, 0);
        for (offset, value) in writes {
            let _ = block.write(offset & !3, value, 0);
        }
        prop_assert_eq!(dwords(&mut block, 0), before);
    }

    /// Whatever was written before, at most one of Committed and Error is set, and neither
    /// without Commit.
    #[test]
    fn status_bits_are_exclusive_and_need_commit(
        polls in 0u32..3,
        writes in prop::collection::vec((0u16..0x90, any::<u32>(), any::<bool>()), 0..200),
    ) {
        let mut block = device();
        block.set_commit_time(None, CommitTime::Polls(polls));
        for (offset, value, reads) in writes {
            let _ = block.write(offset & !3, value, 0);
            if reads {
                let _ = block.read(offset & !3, 0);
            }
            for image in block.images() {
                let control = image.control;
                prop_assert!(control & (COMMITTED | ERROR) != COMMITTED | ERROR);
                prop_assert!(control & COMMIT != 0 || control & (COMMITTED | ERROR) == 0);
            }
        }
    }
}
