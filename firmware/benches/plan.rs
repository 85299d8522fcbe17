//! How long planning takes.
//!
//! **Invariant**: a board is built outside the measured part; what is measured is [`plan`] alone.
#![allow(missing_docs, reason = "criterion's macros make public items without documentation")]

#[path = "../tests/board/mod.rs"]
mod board;

use board::{Board, BoardPlan, GIB};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cxl_firmware::plan::plan;
use cxl_firmware::policy::{Policy, Width};

/// `bridges` bridges with `ports` devices of 1 GiB each, and a window for each bridge.
fn flat(bridges: u32, ports: u8) -> Board {
    let mut board = Board::new();
    for uid in 0..bridges {
        let bridge = board.bridge(uid);
        for number in 0..ports {
            let port = board.root_port(bridge, number);
            board.memory(port, GIB, 0);
        }
        board.window((u64::from(uid) + 1) << 36, 64 * GIB, &[uid]);
    }
    board
}

/// 16 bridges with 16 devices each below windows over two bridges each: sets of 16.
fn sets() -> Board {
    let mut board = flat(16, 16);
    board.windows.clear();
    for pair in 0..8 {
        let uids = [2 * pair, 2 * pair + 1];
        board.window((u64::from(pair) + 1) << 36, 64 * GIB, &uids);
    }
    board
}

fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan/flat");
    for (bridges, ports) in [(2, 8), (4, 8), (8, 8), (8, 16), (16, 16)] {
        let board = flat(bridges, ports);
        let (platform, topology) = (board.platform(), board.topology());
        let mut made = Box::new(BoardPlan::new());
        assert_eq!(plan(&platform, topology.tree(), &Policy::default(), &mut *made), Ok(()));
        assert_eq!(made.regions.len(), bridges as usize * usize::from(ports));
        group.throughput(Throughput::Elements(u64::from(bridges) * u64::from(ports)));
        group.bench_function(BenchmarkId::from_parameter(format!("{bridges}x{ports}")), |bench| {
            bench.iter(|| plan(&platform, topology.tree(), &Policy::default(), &mut *made));
        });
    }
    group.finish();
    let board = sets();
    let (platform, topology) = (board.platform(), board.topology());
    let policy = Policy { width: Width::Widest, ..Policy::default() };
    let mut made = Box::new(BoardPlan::new());
    assert_eq!(plan(&platform, topology.tree(), &policy, &mut *made), Ok(()));
    assert_eq!(made.regions.iter().map(|region| made.members(region).len()).sum::<usize>(), 256);
    criterion.bench_function("plan/sets/16x16", |bench| {
        bench.iter(|| plan(&platform, topology.tree(), &policy, &mut *made));
    });
}

criterion_group!(benches, measure);
criterion_main!(benches);
