//! HPA to (position, DPA) and back, against the definition's division in the same run.
//!
//! **Invariant**: both sides get the same inputs through the same black boxes, one address an
//! iteration. `plain` knows ways and granularity as numbers and divides by their product, as one
//! would write it from the definition alone; `crate` is what the library does.
//!
//! Group `to_dpa/6-way` holds `crate/512 B` beside `plain/512 B`, and so on: the ratio of two
//! neighbours is what the arithmetic saves. `window/...` is the same on absolute addresses.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use cxl_regs::{Granularity, Hpa, Interleave, Selector, Ways};

/// The definition: whole rounds, and the place in the round.
#[derive(Clone, Copy)]
struct Plain {
    ways: u64,
    granularity: u64,
}

impl Plain {
    fn new(set: Interleave) -> Self {
        Self { ways: set.ways.count().into(), granularity: set.granularity.bytes() }
    }

    fn to_dpa(self, offset: u64) -> (u32, u64) {
        let stripe = self.ways * self.granularity;
        let position = offset % stripe / self.granularity;
        let dpa = offset / stripe * self.granularity + offset % self.granularity;
        (position as u32, dpa)
    }

    fn to_hpa(self, position: u32, dpa: u64) -> Option<u64> {
        if u64::from(position) >= self.ways {
            return None;
        }
        let granule = dpa / self.granularity * self.ways + u64::from(position);
        granule.checked_mul(self.granularity)?.checked_add(dpa % self.granularity)
    }
}

/// Offsets all over a region of 1 TiB.
fn offsets() -> [u64; 64] {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    [(); 64].map(|()| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 24
    })
}

/// One benchmark: `work` on one input after the other; a time is that of one address.
///
/// The answers are summed up and looked at once, as storing each would cost more than the work.
fn run<T: Copy>(
    c: &mut Criterion,
    group: &str,
    id: BenchmarkId,
    inputs: [T; 64],
    work: impl Fn(T) -> u64,
) {
    c.benchmark_group(group).bench_function(id, |b| {
        b.iter_custom(|addresses| {
            let inputs = black_box(&inputs);
            let start = Instant::now();
            let sum = (0..addresses as usize)
                .fold(0, |sum: u64, n| sum.wrapping_add(work(inputs[n % inputs.len()])));
            black_box(sum);
            start.elapsed()
        });
    });
}

fn sets() -> impl Iterator<Item = Interleave> {
    Ways::ALL
        .into_iter()
        .flat_map(|ways| Granularity::ALL.map(|granularity| Interleave::new(ways, granularity)))
}

fn to_dpa(c: &mut Criterion) {
    let sum = |(position, dpa): (u32, u64)| u64::from(position) + dpa;
    for set in sets() {
        let group = format!("to_dpa/{}-way", set.ways);
        let id = |side| BenchmarkId::new(side, set.granularity);
        let plain = Plain::new(set);
        run(c, &group, id("crate"), offsets(), |offset| {
            let set = black_box(&set);
            sum((set.position(offset), set.dpa_offset(offset)))
        });
        run(c, &group, id("plain"), offsets(), |offset| sum(black_box(&plain).to_dpa(offset)));
    }
}

fn to_hpa(c: &mut Criterion) {
    for set in sets() {
        let group = format!("to_hpa/{}-way", set.ways);
        let id = |side| BenchmarkId::new(side, set.granularity);
        let plain = Plain::new(set);
        let places = offsets().map(|offset| plain.to_dpa(offset));
        run(c, &group, id("crate"), places, |(position, dpa)| {
            black_box(&set).hpa_offset(position, dpa).unwrap_or(0)
        });
        run(c, &group, id("plain"), places, |(position, dpa)| {
            black_box(&plain).to_hpa(position, dpa).unwrap_or(0)
        });
    }
}

/// A window selects on absolute addresses, here from a base in the second third of a round.
fn window(c: &mut Criterion) {
    const BASE: u64 = 4 << 30;
    for ways in Ways::ALL {
        let set = Interleave::new(ways, Granularity::B256);
        let plain = Plain::new(set);
        let modulo = Selector::modulo(set);
        let maps = [0x1_0100, 0x2_0200, 0x4_0400, 0x8_0800];
        let xor = Selector::xor(set, &maps).expect("each map starts at its own bit");
        let hpas = offsets().map(|offset| Hpa(BASE + offset));
        let id = |side| BenchmarkId::new(side, set.granularity);
        let group = format!("window_to_target/{ways}-way");
        for (side, selector) in [("crate", modulo), ("crate, XOR", xor)] {
            run(c, &group, id(side), hpas, |hpa| black_box(&selector).position(hpa).into());
        }
        run(c, &group, id("plain"), hpas, |hpa| black_box(&plain).to_dpa(hpa.0).0.into());
        let group = format!("window_to_hpa/{ways}-way");
        for (side, selector) in [("crate", modulo), ("crate, XOR", xor)] {
            let places = hpas.map(|hpa| (selector.position(hpa), set.dpa_offset(hpa.0 - BASE)));
            run(c, &group, id(side), places, |(position, dpa)| {
                black_box(&selector).hpa(Hpa(BASE), position, dpa).map_or(0, |hpa| hpa.0)
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(80))
        .nresamples(1001)
        .without_plots()
        .sample_size(10);
    targets = to_dpa, to_hpa, window
}
criterion_main!(benches);
