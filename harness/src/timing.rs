//! The processor's time-stamp counter, and the middle of many measurements.
//!
//! **Invariant**: no figure is made of one measurement.

use std::time::{Duration, Instant};

/// The middle of some numbers; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The time-stamp counter against the clock.
pub(crate) fn ticks_per_nanosecond() -> f64 {
    let count = || {
        // SAFETY: every x86-64 processor has the counter.
        unsafe { core::arch::x86_64::_rdtsc() }
    };
    let (start, from) = (Instant::now(), count());
    std::thread::sleep(Duration::from_millis(50));
    (count() - from) as f64 / start.elapsed().as_nanos() as f64
}
