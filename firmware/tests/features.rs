//! Each cargo feature by what a build without it does: it refuses by name, before anything is written. Run
//! with all features, with none, and with each alone (`.ci/features`).
//!
//! **Invariant**: every case runs in every build; which way it has to end is what the build says of its
//! features, and nothing else.

mod board;
#[allow(dead_code, reason = "discovery tests use all of it")]
mod fake;

use cxl_firmware::bring_up::{Workspace, add, bring_up};
use cxl_firmware::discover::discover;
use cxl_firmware::error::{Code, Error};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{EarlierRange, OnFailure, PathPolicy, Policy, Probe, Reserve, Width};
use cxl_firmware::topology::{DeviceKind, Partition, Topology};
use cxl_regs::{Arithmetic, Interleave};

use board::{Board, GIB, bi, members, path};

/// What a build without a feature says: its number and detail.
type NotBuilt = (Code, u16);

/// Holds how something ended against whether its feature is there.
fn ends(feature: &str, built: bool, not_built: NotBuilt, result: Result<(), Error>) {
    let refused = result.err().filter(|error| (error.code, error.detail) == not_built);
    assert_eq!(refused.is_none(), built, "{feature}: {result:?}");
    if let Some(error) = refused {
        assert!(error.is_failure());
        #[cfg(feature = "sentences")]
        assert!(error.to_string().ends_with(&format!("without the feature {feature}")), "{error}");
    }
}

/// Nothing is probed, as a build need not have it.
const PLAIN: Policy<'static> = Policy { probe: Probe::Skip, ..Policy::DEFAULT };

fn two_bridges() -> Board {
    let mut board = Board::new();
    board.bridge_with_memory(7, GIB);
    board.bridge_with_memory(8, GIB);
    board.window(16 * GIB, 4 * GIB, &[7, 8]);
    board.window(32 * GIB, 4 * GIB, &[7]);
    board.window(48 * GIB, 4 * GIB, &[8]);
    board
}

fn planned(board: &Board, policy: &Policy<'_>) -> Result<(), Error> {
    board.plan(policy).map(|_| ())
}

#[test]
fn what_a_plan_needs_is_refused_by_name() {
    let board = two_bridges();
    assert_eq!(planned(&board, &PLAIN), Ok(()), "no feature is needed");
    let built = cfg!(feature = "interleave");
    let wide = Policy { width: Width::Widest, ..PLAIN };
    ends("interleave", built, (Code::PLAN_NOT_BUILT, 1), planned(&board, &wide));
    let sets = [members(&[path(7, &[0]), path(8, &[0])])];
    let named = Policy { sets: &sets, ..PLAIN };
    ends("interleave", built, (Code::PLAN_NOT_BUILT, 1), planned(&board, &named));

    let mut xor = two_bridges();
    xor.windows[0].arithmetic = Arithmetic::Xor;
    xor.windows[0].xor_maps.push(1 << 8).expect("room");
    ends("xor", cfg!(feature = "xor"), (Code::PLAN_NOT_BUILT, 2), planned(&xor, &PLAIN));

    let mut accelerator = Board::new();
    let bridge = accelerator.bridge(7);
    let port = accelerator.root_port(bridge, 0);
    let device = accelerator.memory(port, GIB, 0);
    accelerator.device(device).kind = DeviceKind::Type2;
    accelerator.node(device).back_invalidate = bi(false);
    accelerator.node(port).back_invalidate = bi(false);
    let window = accelerator.window(16 * GIB, 4 * GIB, &[7]);
    window.restrictions = window.restrictions.with_back_invalidate(true);
    let result = planned(&accelerator, &PLAIN);
    let built = cfg!(feature = "back-invalidate");
    ends("back-invalidate", built, (Code::PLAN_NOT_BUILT, 3), result);

    let describe = Policy { path: PathPolicy::Describe, ..PLAIN };
    let built = cfg!(feature = "describe");
    ends("describe", built, (Code::PLAN_NOT_BUILT, 5), planned(&board, &describe));

    let earlier = [EarlierRange {
        device: path(7, &[0]),
        partition: Partition::Volatile,
        span: cxl_regs::Span::new(cxl_regs::Hpa(33 * GIB), GIB).expect("a range"),
        interleave: Interleave::NONE,
    }];
    let policy = Policy { earlier: &earlier, ..PLAIN };
    let built = cfg!(feature = "earlier");
    ends("earlier", built, (Code::PLAN_NOT_BUILT, 6), planned(&board, &policy));

    let reserve = [Reserve { at: path(7, &[0]), partition: Partition::Volatile, size: GIB }];
    let policy = Policy { reserve: &reserve, ..PLAIN };
    let built = cfg!(feature = "hot-plug");
    ends("hot-plug", built, (Code::PLAN_NOT_BUILT, 7), planned(&board, &policy));
}

#[test]
fn what_a_bring_up_needs_is_refused_by_name_and_nothing_is_touched() {
    let best_effort = Policy { on_failure: OnFailure::BestEffort, ..PLAIN };
    let probes = Policy::DEFAULT;
    let cases = [
        ("degrade", cfg!(feature = "degrade"), 0, best_effort),
        ("probe", cfg!(feature = "probe"), 4, probes),
    ];
    for (feature, built, detail, policy) in cases {
        let (mut hw, bridges) = fake::small();
        let platform = Platform { windows: &[], ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        ends(feature, built, (Code::PLAN_NOT_BUILT, detail), result.map(|_| ()));
        assert_eq!(hw.reads.is_empty(), !built, "{feature}");
    }
    let (mut hw, bridges) = fake::small();
    let mut work = Workspace::<4, 4, 8>::new();
    let platform = fake::platform(&bridges, &[]);
    let result = add(&mut hw, &mut fake::clock(), &platform, &PLAIN, &mut work);
    let built = cfg!(feature = "hot-plug");
    ends("hot-plug", built, (Code::PLAN_NOT_BUILT, 7), result.map(|_| ()));
    assert_eq!(hw.reads.is_empty(), !built, "hot-plug");
}

#[test]
fn what_discovery_needs_is_refused_by_name() {
    let discovered = |hw: &mut fake::Fake, platform: &Platform<'_>| {
        let mut topology = Topology::<8>::new();
        discover(hw, &mut fake::clock(), platform, &mut topology)
    };
    // A device with device registers, whose ranges leave the kind of memory to others.
    let (mut hw, bridges) = fake::small();
    let mut block = fake::Registers::new();
    fake::put(&mut block, 0, &[0x0001_0000, 0, 0, 0]);
    hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(block));
    let result = discovered(&mut hw, &fake::platform(&bridges, &[]));
    let built = cfg!(feature = "mailbox");
    ends("mailbox", built, (Code::DISCOVER_NOT_BUILT, 0), result);

    let (mut hw, bridges) = fake::switched(true);
    let given = [fake::resources(12, 0xd000_0000, 0x1000_0000)];
    let result = discovered(&mut hw, &fake::platform(&bridges, &given));
    ends("assign", cfg!(feature = "assign"), (Code::DISCOVER_NOT_BUILT, 1), result);
    if cfg!(not(feature = "assign")) {
        assert_eq!(hw.writes, [], "nothing is assigned");
    }
}
