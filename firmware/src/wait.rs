//! Waiting for hardware, within bounds.
//!
//! **Invariant**: every wait ends: by the clock, or, where the clock stands still or is far too slow,
//! after a number of polls that takes seconds on the slowest bus. A clock that wraps, at however many
//! bits, or that steps back loses one step and no more.

use crate::mmio::{Clock, Mmio};

/// A read across a bus takes longer than a quarter of a microsecond, so that many polls outlast
/// the time they are allowed unless the clock is wrong.
const POLLS_PER_MICROSECOND: u64 = 4;

/// How many polls in a row show whether the clock runs: some 16 ms at the least, and 5 s where each of
/// them leaves a virtual machine, at 70 us.
const BATCH: u64 = 1 << 16;

/// The microseconds that it has to go meanwhile: a sixteenth of that, as configuration space may be
/// memory that a virtual machine's monitor keeps.
const LEAST_PER_BATCH: u64 = BATCH / POLLS_PER_MICROSECOND / 16;

/// How often the clock is read within a millisecond before it counts as broken.
const CLOCK_READS: u32 = 1 << 17;

/// What was waited for did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// How often it was asked.
    pub polls: u64,
    /// How long.
    pub microseconds: u64,
}

/// The time that has passed, by a clock that nobody trusts.
struct Elapsed {
    last: u64,
    total: u64,
}

impl Elapsed {
    fn start(clock: &mut impl Clock) -> Self {
        Self { last: clock.microseconds(), total: 0 }
    }

    /// Microseconds since the start.
    fn look(&mut self, clock: &mut impl Clock) -> u64 {
        let now = clock.microseconds();
        // More than half of all numbers: it wrapped at fewer than 64 bits, or stepped back.
        let step = Some(now.wrapping_sub(self.last)).filter(|step| *step <= u64::MAX / 2);
        self.last = now;
        self.total = self.total.saturating_add(step.unwrap_or(0));
        self.total
    }
}

/// Polls until there is an answer, for at most `limit` microseconds. The last poll comes after the
/// time is over, so a caller that was held up in between does not give up on hardware that was ready.
pub fn wait<T>(
    clock: &mut impl Clock,
    limit: u64,
    mut poll: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let mut elapsed = Elapsed::start(clock);
    let most = limit.saturating_mul(POLLS_PER_MICROSECOND).max(1);
    let (mut polls, mut batch_end, mut batch_from) = (0, BATCH, 0);
    loop {
        let microseconds = elapsed.look(clock);
        if let Some(answer) = poll() {
            return Ok(answer);
        }
        polls += 1;
        let mut over = microseconds >= limit || polls >= most;
        if polls >= batch_end {
            over |= microseconds.saturating_sub(batch_from) < LEAST_PER_BATCH;
            (batch_end, batch_from) = (polls.saturating_add(BATCH), microseconds);
        }
        if over {
            return Err(TimedOut { polls, microseconds });
        }
    }
}

/// Reads the dword at an address until it is `done`, for at most `limit` microseconds; gives what it was
/// last.
// Compiled once, whatever is waited for.
#[inline(never)]
pub(crate) fn poll(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    limit: u64,
    address: u64,
    done: fn(u32) -> bool,
) -> (u32, Result<(), TimedOut>) {
    let mut found = 0;
    let result = wait(clock, limit, || {
        found = hw.read(address);
        done(found).then_some(())
    });
    (found, result)
}

/// Reads the dword at an address once a millisecond until it is `done`; at once and once more at the end.
/// Gives what it was last, as an error where it never was. For waits of seconds to minutes: one of n
/// milliseconds asks the hardware at most n + 2 times. It ends by the clock, or as soon as the clock does
/// not come through a millisecond.
// Compiled once, whatever is waited for.
#[inline(never)]
pub(crate) fn poll_each_millisecond(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    milliseconds: u32,
    address: u64,
    done: fn(u32) -> bool,
) -> Result<u32, u32> {
    let mut elapsed = Elapsed::start(clock);
    let end = u64::from(milliseconds) * 1000;
    let mut left = milliseconds.saturating_add(1);
    loop {
        let found = hw.read(address);
        if done(found) {
            return Ok(found);
        }
        let Some(less) = left.checked_sub(1) else { return Err(found) };
        left = less;
        let from = elapsed.total;
        // The last one comes whatever the clock says.
        if left > 0 {
            let runs = (0..CLOCK_READS).any(|_| elapsed.look(clock) - from >= 1000);
            left = if runs && elapsed.total <= end { left } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock of so many bits that goes a step each time it is looked at.
    struct Stepping {
        now: u64,
        step: u64,
        mask: u64,
        looks: u64,
    }

    impl Clock for Stepping {
        fn microseconds(&mut self) -> u64 {
            self.looks += 1;
            self.now = self.now.wrapping_add(self.step) & self.mask;
            self.now
        }
    }

    /// The clock that advances once in so many looks.
    struct Slow(u64, u64);

    impl Clock for Slow {
        fn microseconds(&mut self) -> u64 {
            self.0 += 1;
            self.0 / self.1
        }
    }

    /// Hardware that is not there, and how often it was asked.
    struct Silent(u32);

    impl Mmio for Silent {
        fn read(&mut self, _: u64) -> u32 {
            self.0 += 1;
            u32::MAX
        }

        fn write(&mut self, _: u64, _: u32) {}
    }

    const LIMIT: u64 = 100_000_000;

    fn polls(clock: &mut impl Clock) -> TimedOut {
        wait(clock, LIMIT, || None::<()>).expect_err("there is no answer")
    }

    #[test]
    fn a_clock_that_runs_is_believed_whatever_its_width() {
        for bits in [24, 32, 64] {
            let mask = u64::MAX >> (64 - bits);
            let mut clock = Stepping { now: mask - 5000, step: 1000, mask, looks: 0 };
            let over = polls(&mut clock);
            assert!(over.microseconds >= LIMIT, "{bits} bits: {over:?}");
            // Each time that it wraps, one step is lost.
            let wraps = LIMIT / (mask / 2) + 2;
            assert!(over.polls <= LIMIT / 1000 + wraps, "{bits} bits: {over:?}");
        }
    }

    #[test]
    fn a_clock_that_is_broken_ends_a_wait_after_so_many_polls() {
        let still = Stepping { now: 7, step: 0, mask: u64::MAX, looks: 0 };
        let back = Stepping { now: 7, step: u64::MAX, mask: u64::MAX, looks: 0 };
        for mut clock in [still, back] {
            assert_eq!(polls(&mut clock), TimedOut { polls: BATCH, microseconds: 0 });
            let Stepping { looks: before, .. } = clock;
            let mut silent = Silent(0);
            let answer = poll_each_millisecond(&mut silent, &mut clock, 256_000, 0, |_| false);
            assert_eq!((answer, silent.0), (Err(u32::MAX), 2));
            assert!(clock.looks - before <= u64::from(CLOCK_READS) + 1);
        }
        assert_eq!(polls(&mut Slow(0, 100)).polls, BATCH);
        let mut silent = Silent(0);
        let answer = poll_each_millisecond(&mut silent, &mut Slow(0, 1000), 256_000, 0, |_| false);
        assert!(answer.is_err());
        assert_eq!(silent.0, 2, "it did not come through the first millisecond");
    }

    #[test]
    fn what_answers_late_is_asked_once_a_millisecond_and_once_more() {
        for milliseconds in [0, 1, 20] {
            let mut clock = Stepping { now: 0, step: 1000, mask: u64::MAX, looks: 0 };
            let mut silent = Silent(0);
            let answer = poll_each_millisecond(&mut silent, &mut clock, milliseconds, 0, |_| false);
            assert_eq!((answer, silent.0), (Err(u32::MAX), milliseconds + 2));
        }
        let mut silent = Silent(0);
        let answer = poll_each_millisecond(&mut silent, &mut Slow(0, 1), 9, 0, |_| true);
        assert_eq!((answer, silent.0), (Ok(u32::MAX), 1));
    }

    #[test]
    fn a_clock_that_ticks_each_ten_milliseconds_runs() {
        // At a quarter of a microsecond a poll.
        struct Coarse(u64);
        impl Clock for Coarse {
            fn microseconds(&mut self) -> u64 {
                self.0 += 1;
                self.0 / 40_000 * 10_000
            }
        }
        let over = wait(&mut Coarse(0), 1_000_000, || None::<()>).expect_err("no answer");
        assert!(over.microseconds >= 900_000, "{over:?}");
    }
}
