//! Waits of seconds to minutes, in which the hardware is asked once a millisecond. They end by the
//! clock, or at once if the clock stands still.
//!
//! **Invariant**: a wait of n milliseconds asks the hardware at most n + 2 times.

use crate::mmio::Clock;

/// How often the clock is read within a millisecond before it counts as broken.
const CLOCK_READS: u32 = 1 << 17;

/// Asks `poll` once a millisecond until it has an answer; at once and once more at the end.
pub(super) fn poll_each_millisecond<T>(
    clock: &mut impl Clock,
    milliseconds: u32,
    mut poll: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(answer) = poll() {
        return Some(answer);
    }
    let start = clock.microseconds();
    let end = u64::from(milliseconds) * 1000;
    for _ in 0..milliseconds {
        let from = clock.microseconds();
        if from.wrapping_sub(start) >= end {
            break;
        }
        let mut now = from;
        for _ in 0..CLOCK_READS {
            now = clock.microseconds();
            if now.wrapping_sub(from) >= 1000 {
                break;
            }
        }
        if now == from {
            break;
        }
        if let Some(answer) = poll() {
            return Some(answer);
        }
    }
    poll()
}
