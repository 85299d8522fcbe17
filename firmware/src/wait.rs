//! Waiting for hardware, within bounds.
//!
//! **Invariant**: every wait ends: by the clock, or by the number of polls where the clock stands
//! still or runs backwards.

use crate::mmio::Clock;

/// A read across a bus takes longer than a quarter of a microsecond, so that many polls outlast
/// the time they are allowed unless the clock is broken.
const POLLS_PER_MICROSECOND: u64 = 4;

/// What was waited for did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// How often it was asked.
    pub polls: u64,
    /// How long.
    pub microseconds: u64,
}

/// Polls until there is an answer, for at most `limit` microseconds. The last poll comes after the time is over, so a caller that
/// was held up in between does not give up on hardware that was ready.
pub fn wait<T>(
    clock: &mut impl Clock,
    limit: u64,
    mut poll: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let start = clock.microseconds();
    let most = limit.saturating_mul(POLLS_PER_MICROSECOND).max(1);
    let mut polls = 0;
    loop {
        let microseconds = clock.microseconds().saturating_sub(start);
        if let Some(answer) = poll() {
            return Ok(answer);
        }
        polls += 1;
        if microseconds >= limit || polls >= most {
            return Err(TimedOut { polls, microseconds });
        }
    }
}
