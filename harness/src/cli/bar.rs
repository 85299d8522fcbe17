//! How far an attack has come, on a terminal; nothing in a pipe.
//!
//! **Invariant**: one line, which never reaches the terminal's last column, so that it is gone when
//! the next one is written over it and when it is cleared.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// There is one terminal, and one attack at a time.
static STEP: AtomicUsize = AtomicUsize::new(0);
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// Columns of the part that fills.
const WIDTH: usize = 30;

/// So many steps come, at most.
pub(super) fn begin(steps: usize) {
    STEP.store(0, Ordering::Relaxed);
    STEPS.store(steps, Ordering::Relaxed);
}

/// One more step.
pub(super) fn advance(state: &str, component: &str) {
    let step = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    if !stderr().is_terminal() {
        return;
    }
    let columns = terminal_size::terminal_size_of(stderr());
    let columns = columns.map_or(80, |(terminal_size::Width(columns), _)| columns.into());
    let line = line(step, STEPS.load(Ordering::Relaxed), &format!("{state}: {component}"), columns);
    let _ = write!(stderr(), "\r{line}\x1b[K");
    let _ = stderr().flush();
}

/// Nothing more is to be seen of it.
pub(super) fn clear() {
    if STEP.load(Ordering::Relaxed) != 0 && stderr().is_terminal() {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

fn line(step: usize, steps: usize, what: &str, columns: usize) -> String {
    let done = (WIDTH * step / steps.max(1)).min(WIDTH);
    let (full, rest) = ("#".repeat(done), ".".repeat(WIDTH - done));
    format!("[{full}{rest}] {what}").chars().take(columns.saturating_sub(1)).collect()
}
